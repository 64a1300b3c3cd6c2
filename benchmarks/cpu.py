"""The cost of decoding on the CPU, against transformers and against a bare loop of forwards.

    python benchmarks/cpu.py [--checks-alone]

One thread, a tiny Llama, so that what is not the forward shows. Processor time; all figures of a table come from one
run with the cases taking turns; read the ratios, not the times.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
import transformers
from common import best_of as fastest
from common import parser, plot, save, table
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import genmode
from genmode.session import commit, links, scores, step

best_of = functools.partial(fastest, clock=time.process_time)
SAMPLE = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9}


def tiny(vocabulary: int = 1000) -> Any:
    """A random Llama of 4 layers of width 64."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, max_position_embeddings=8192, bos_token_id=1, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def prompt(rows: int, length: int) -> torch.Tensor:
    """Random token ids, `[rows, length]`."""
    return torch.randint(3, 900, (rows, length), generator=torch.Generator().manual_seed(1))


def bare(model: Any, ids: torch.Tensor, steps: int) -> Callable[[], object]:
    """Greedy search with nothing around it: forward, argmax, transformers' default cache."""

    def run() -> None:
        cache = DynamicCache(config=model.config)
        token = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)
        for _ in range(steps - 1):
            token = model(input_ids=token[:, None], past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)

    return run


def both(model: Any, ids: torch.Tensor, steps: int, **flags: Any) -> dict[str, Callable[[], object]]:
    """The same call through transformers and through genmode."""
    mask = torch.ones_like(ids)
    call = {"attention_mask": mask, "max_new_tokens": steps, **flags}
    return {
        "transformers": lambda: model.generate(ids, **call),
        "genmode": lambda: genmode.generate(model, ids, **call),
    }


def strategies(repeats: int, steps: int = 64) -> list[dict[str, Any]]:
    """Each strategy against a bare loop of as many rows."""
    model, rows = tiny(), []
    ids = prompt(1, 16)
    for name, flags, width in (
        ("greedy_search", {}, 1), ("sample T, top-k, top-p", SAMPLE, 1), ("beam_search, 4 beams", {"num_beams": 4}, 4),
        ("beam_sample, 4 beams", {"num_beams": 4, "do_sample": True}, 4),
    ):  # fmt: skip
        cases = {"bare": bare(model, ids.expand(width, -1), steps), **both(model, ids, steps, **flags)}
        seconds = best_of(cases, repeats)
        rows.append(row(name, seconds, steps))
    long = prompt(1, 2000)
    seconds = best_of({"bare": bare(model, long, 32), **both(model, long, 32)}, repeats)
    rows.append(row("greedy_search, 2,000 tokens of context", seconds, 32))
    return rows


def row(name: str, seconds: dict[str, float], steps: int) -> dict[str, Any]:
    """Ratios to the bare loop."""
    return {
        "strategy": name, "bare ms/step": seconds["bare"] / steps * 1e3,
        "transformers / bare": seconds["transformers"] / seconds["bare"],
        "genmode / bare": seconds["genmode"] / seconds["bare"],
        "transformers / genmode": seconds["transformers"] / seconds["genmode"],
    }  # fmt: skip


def drafting(repeats: int, steps: int = 64) -> list[dict[str, Any]]:
    """Prompt lookup at batch 8 against plain greedy, where there is much to copy and where there is nothing.

    The copying model attends to nothing: its next token is a fixed function of the last one, a cycle of 12
    tokens. The other is the random model, whose greedy text does not repeat within the run.
    """
    rows: list[dict[str, Any]] = []
    for name, model in (("copy-heavy", copying()), ("nothing to copy", tiny())):
        ids = prompt(8, 32) if name != "copy-heavy" else (torch.arange(40) % 12 + 3).expand(8, -1).contiguous()
        call = {"attention_mask": torch.ones_like(ids), "max_new_tokens": steps}
        cases = {
            "greedy": lambda m=model, i=ids, c=call: genmode.generate(m, i, **c),
            "lookup": lambda m=model, i=ids, c=call: genmode.generate(m, i, prompt_lookup_num_tokens=6, **c),
        }
        seconds = best_of(cases, repeats)
        rows.append({"text": name, "greedy / prompt_lookup": seconds["greedy"] / seconds["lookup"]})
    return rows


def copying() -> Any:
    """A Llama whose next token follows from the last one alone, in a cycle of 12."""
    model = tiny()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        codes = torch.nn.functional.normalize(torch.randn(1000, 64, generator=torch.Generator().manual_seed(2)), dim=1)
        model.model.embed_tokens.weight.copy_(codes)
        model.lm_head.weight.zero_()
        cycle = torch.arange(12) + 3
        model.lm_head.weight[cycle.roll(-1)] = codes[cycle]
    return model


CHECKED = {
    "greedy_search": {},
    "sample T, top-k, top-p": SAMPLE,
    "sample, penalties": {**SAMPLE, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3},
    "prompt_lookup": {"prompt_lookup_num_tokens": 6},
}
"""Calls that the checks of what components return are timed in."""


@contextmanager
def unchecked() -> Iterator[None]:
    """Calls in which nothing that a component returns is looked at; all of it is right here."""
    nothing: dict[str, Callable[..., Any]] = {
        "check_choice": lambda *_: None, "check_tokens": lambda *_: None, "as_scores": lambda returned, _: returned,
    }  # fmt: skip
    with ExitStack() as stack:
        for module, name in (
            (commit, "check_choice"),
            (step, "check_tokens"),
            (links, "as_scores"),
            (scores, "as_scores"),
        ):
            stack.enter_context(mock.patch.object(module, name, nothing[name]))
        yield


def checks(repeats: int, steps: int = 64) -> list[dict[str, Any]]:
    """What looking at scores and tokens that components return costs; the median of the ratios of neighbouring calls.

    Neighbours share what else the machine does. Which of the two comes first changes from round to round. On a machine that
    others use as well, the ratio of the best times is the steadier figure.
    """
    rows: list[dict[str, Any]] = []
    for vocabulary in (1000, 32000):
        model, ids = tiny(vocabulary), prompt(1, 16)
        call = {"attention_mask": torch.ones_like(ids), "max_new_tokens": steps}
        for name, flags in CHECKED.items():
            taken: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(repeats + 1):
                for checked in (True, False) if turn % 2 else (False, True):
                    with nullcontext() if checked else unchecked():
                        torch.manual_seed(turn)
                        begin = time.process_time()
                        genmode.generate(model, ids, **call, **flags)
                        seconds = time.process_time() - begin
                    taken[checked] += [seconds] if turn else []  # the first round warms up
            ratios = [one / other for one, other in zip(taken[True], taken[False], strict=True)]
            quarters = statistics.quantiles(ratios, n=4)
            rows.append({
                "call": name, "vocabulary": vocabulary, "checked / unchecked": statistics.median(ratios),
                "quarter below": quarters[0], "quarter above": quarters[2],
                "best / best": min(taken[True]) / min(taken[False]), "rounds": repeats,
            })  # fmt: skip
    return rows


def growth(repeats: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Milliseconds a step against context, batch and vocabulary."""
    steps = 24
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def measure(
        title: str, sizes: tuple[int, ...], make: Callable[[int], tuple[Any, torch.Tensor]], **flags: Any
    ) -> None:
        for size in sizes:
            model, ids = make(size)
            for name, seconds in best_of(both(model, ids, steps, **flags), max(2, repeats // 2)).items():
                panels.setdefault(title, {}).setdefault(name, []).append((size, seconds / steps * 1e3))

    model = tiny()
    measure("greedy, tokens of context", (64, 256, 1024, 4096), lambda n: (model, prompt(1, n)))
    measure("greedy, batch", (1, 4, 16, 64), lambda n: (model, prompt(n, 16)))
    measure("sample, vocabulary", (1000, 8000, 32000, 128000), lambda n: (tiny(n), prompt(1, 16)), **SAMPLE)
    return panels


def calls(repeats: int) -> list[dict[str, Any]]:
    """What one whole call costs outside its forwards, greedy, 32 tokens."""
    model, ids, steps = tiny(), prompt(1, 16), 32
    seconds = best_of({"bare": bare(model, ids, steps), **both(model, ids, steps)}, 2 * repeats)
    outside = {name: (value - seconds["bare"]) * 1e3 for name, value in seconds.items() if name != "bare"}
    return [{"call": "greedy, 32 tokens", **{f"{name}, ms outside forwards": value for name, value in outside.items()}}]


def print_checks(repeats: int) -> list[dict[str, Any]]:
    """The table of `checks`; its differences are small, so that it takes twenty rounds for each of the others' one."""
    rows = checks(20 * repeats)
    table("Checks of what components return (ratios of neighbouring calls, medians)", rows)
    return rows


def main() -> None:
    """Run everything, print tables, write JSON and a plot."""
    options = parser(__doc__ or "")
    options.add_argument("--checks-alone", action="store_true", help="the table of checks, and nothing else")
    arguments = options.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if arguments.checks_alone:
        save(arguments.out / "cpu-checks.json", {"checks": print_checks(arguments.repeats)})
        return
    results: dict[str, Any] = {"strategies": strategies(arguments.repeats)}
    table("Strategies (tiny Llama, one thread, ratios from one run)", results["strategies"])
    results["calls"] = calls(arguments.repeats)
    table("Calls", results["calls"])
    results["drafting"] = drafting(arguments.repeats)
    table("Drafting, batch 8", results["drafting"])
    save(arguments.out / "cpu-checks.json", {"checks": print_checks(arguments.repeats)})
    results["growth_ms_per_step"] = growth(arguments.repeats)
    save(arguments.out / "cpu.json", results)
    plot(arguments.out / "cpu.png", results["growth_ms_per_step"], "ms a step")


if __name__ == "__main__":
    main()
