"""`genmode generate` and `genmode explain`: run a call on a model, or say what it would do."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from ..contract.kinds import Kind
from ..errors import ParameterError
from .output import JsonOption, TracebackOption, errors_in_one_line, print_json

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A folder or a name on the Hub; SmolLM2-135M-Instruct if not given.",
        show_default=False,
    ),
]
StrategyOption = Annotated[
    str | None, typer.Option("--strategy", help="Name of the decoding strategy.", show_default=False)
]
ProcessorOption = Annotated[
    list[str] | None,
    typer.Option("--processor", help="Name of a processor; may be repeated.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A parameter as key=value, the value in JSON or text; may be repeated.",
        show_default=False,
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the random numbers.", show_default=False)]
LengthOption = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest continuation, in tokens.")]
SampleOption = Annotated[
    bool | None,
    typer.Option(
        "--sample/--greedy",
        help="Draw tokens, or take the best; the model's own way if neither.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 …; the GPU if there is one.", show_default=False),
]


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The text to continue or answer; - reads it from stdin.")
    ],
    model: ModelOption = None,
    strategy: StrategyOption = None,
    processor: ProcessorOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    max_new_tokens: LengthOption = 128,
    sample: SampleOption = None,
    device: DeviceOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave out the model's chat template.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Say on stderr what ran, and how long each part took.")
    ] = False,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Generate text, written as it is decoded."""
    from . import models

    with errors_in_one_line(traceback):
        options = call_options(strategy, processor, settings, seed, max_new_tokens, sample)
        text = sys.stdin.read() if prompt == "-" else prompt
        loaded, tokenizer = models.load(model, device)
        from .. import api, tracing

        inputs = {key: value.to(loaded.device) for key, value in models.encode(text, tokenizer, raw=raw).items()}
        with tracing.trace() if trace else nullcontext() as traced:
            start = time.perf_counter()
            output: Any = None
            if as_json:
                output = api.generate(loaded, tokenizer=tokenizer, **inputs, **options)
            else:
                for piece in api.stream(loaded, tokenizer=tokenizer, **inputs, **options):
                    sys.stdout.write(piece)
                    sys.stdout.flush()
                sys.stdout.write("\n")
            seconds = time.perf_counter() - start
        if traced is not None:
            typer.echo(str(traced), err=True)
        if not as_json:
            return
        output = getattr(output, "sequences", output)
        skipped = 0 if loaded.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        texts = [tokenizer.decode(row[skipped:], skip_special_tokens=True) for row in output]
        tokens = [row[skipped:].tolist() for row in output]
        plan = api.explain(loaded, tokenizer=tokenizer, **inputs, **options)
        print_json({"texts": texts, "tokens": tokens, "seconds": seconds, "plan": plan.to_dict()})


def explain(
    model: ModelOption = None,
    strategy: StrategyOption = None,
    processor: ProcessorOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    max_new_tokens: LengthOption = 128,
    sample: SampleOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Say what `generate` with these options would run, and why."""
    from . import models

    with errors_in_one_line(traceback):
        options = call_options(strategy, processor, settings, seed, max_new_tokens, sample)
        loaded, tokenizer = models.load(model, device)
        from .. import api

        inputs = models.encode("a", tokenizer, raw=True)  # not every model can begin without a prompt
        inputs = {key: value.to(loaded.device) for key, value in inputs.items()}
        plan = api.explain(loaded, tokenizer=tokenizer, **inputs, **options)
    if as_json:
        print_json(plan.to_dict())
    else:
        typer.echo(str(plan))


def call_options(
    strategy: str | None,
    processors: list[str] | None,
    settings: list[str] | None,
    seed: int | None,
    max_new_tokens: int,
    sample: bool | None,
) -> dict[str, Any]:
    """Keyword arguments of `genmode.generate` from the options of a command line.

    Names are checked here, before a model is loaded for them.

    Raises:
        ParameterError: a setting is not key=value, or a key is given twice.
        UnknownComponentError, ConflictError, DisabledError: no strategy or processor can be had by that name.
    """
    from ..plugins.registry import registry

    if strategy is not None:
        registry().info(Kind.STRATEGIES, strategy)
    marking = {info.name for info in registry().components(Kind.WATERMARKERS)}
    for name in processors or ():
        registry().info(Kind.WATERMARKERS if name in marking else Kind.PROCESSORS, name)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    named = {"strategy": strategy, "processors": processors or None, "seed": seed, "do_sample": sample}
    options |= {key: value for key, value in named.items() if value is not None}
    given = {key for key in named if key in options}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise ParameterError("one --set is not allowed; it has to read key=value")  # what was given may be a secret
        if key in given:
            raise ParameterError(f"{key} is given twice; give it once, as an option or by --set")
        given.add(key)
        options[key] = parse_value(value)
    return options


def parse_value(text: str) -> Any:
    """The value of `text` read as JSON, or as Python's True, False and None; else the text itself."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
