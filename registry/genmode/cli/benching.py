"""`genmode bench`: what a step of a strategy costs, against a bare loop of forwards and transformers' own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import ParameterError
from .output import JsonOption, TracebackOption, console, errors_in_one_line, print_json, waiting
from .running import DeviceOption, SetOption, call_options

HEADS = {
    "name": "", "ms_a_step": "ms a step", "ms_a_token": "ms a token", "to_bare_loop": "x bare loop",
    "to_transformers": "x transformers", "steps": "steps", "tokens": "tokens", "engine": "engine",
}  # fmt: skip


def bench(
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="Name of the decoding strategy.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A folder or a name on the Hub; a tiny random Llama if not given, to see what is not the forward.",
            show_default=False,
        ),
    ] = None,
    settings: SetOption = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", help="Another strategy to measure, as it comes; may be repeated.", show_default=False
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Prompts in the batch.")] = 1,
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of each prompt.")] = 32,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens to decode.")] = 64,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds, in which all take turns.")] = 7,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Measure milliseconds a step of strategies, against a bare loop of forwards and transformers' own greedy search.

    Settings are STRATEGY's. All cases take turns, and the best round of each counts: read the ratios, which are of
    the time that a token takes.
    """
    with errors_in_one_line(traceback):
        names = [strategy, *(against or ())]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ParameterError(f"{twice} is given twice; a strategy is measured once")
        calls = {name: call_options(name, None, None, None, tokens, None) for name in names}
        calls[strategy] = call_options(strategy, None, settings, None, tokens, None)
        loaded = _loaded(model, device, prompt + tokens)
        from . import measuring

        with waiting("measuring"):
            found = measuring.cases(loaded, rows, prompt, tokens, calls)
            results = measuring.figures(found, measuring.best_of(found, repeats, loaded.device))
        report: dict[str, Any] = {
            "machine": measuring.machine(loaded.device),
            "model": model or "a tiny random Llama",
            "call": {"rows": rows, "prompt": prompt, "tokens": tokens, "settings": settings or []},
            "repeats": repeats,
            "results": results,
        }
    if as_json:
        print_json(report)
    else:
        _print(report)


def _loaded(model: str | None, device: str | None, longest: int) -> Any:
    from . import models

    if model is not None:
        return models.load(model, device)[0]
    with waiting("starting torch and transformers"):
        from ..testing.harness.models import fresh
    return models.placed(fresh("llama", max_position_embeddings=max(256, longest + 64)), device)


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    out, call = console(), report["call"]
    out.print(
        f"{report['model']}; rows: {call['rows']}, tokens of a prompt: {call['prompt']}, best of {report['repeats']}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, head in HEADS.items():
        table.add_column(head, justify="left" if key in ("name", "engine") else "right")
    for one in report["results"]:
        table.add_row(*(f"{one[key]:.3f}" if isinstance(one[key], float) else str(one[key]) for key in HEADS))
    out.print(table)
    out.print(", ".join(f"{key} {value}" for key, value in report["machine"].items() if value is not None))
