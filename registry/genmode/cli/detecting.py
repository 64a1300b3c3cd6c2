"""`genmode detect`: look for a watermark in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GenmodeError, ParameterError
from .output import JsonOption, TracebackOption, errors_in_one_line, print_json
from .running import DeviceOption, SetOption, parse_value

if TYPE_CHECKING:
    from ..contract import Detection


def detect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The text, in UTF-8; - reads it from stdin.")],
    config: Annotated[
        str | None, typer.Option("--config", help="File that WatermarkingConfig.save wrote.", show_default=False)
    ] = None,
    scheme: Annotated[
        str | None, typer.Option("--scheme", help="Name of the watermarker, without --config.", show_default=False)
    ] = None,
    key_from: Annotated[
        str | None,
        typer.Option("--key-from", help="Where the key is: env:NAME or file:PATH.", show_default=False),
    ] = None,
    settings: SetOption = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Name or folder of the tokenizer; --model's if not given, else SmolLM2-135M-Instruct's.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Name or folder of the model, for schemes that read its predictions.",
            show_default=False,
        ),
    ] = None,
    fpr: Annotated[float, typer.Option("--fpr", help="Share of unmarked texts that may be taken for marked.")] = 0.01,
    window: Annotated[
        int | None,
        typer.Option("--window", min=1, help="Look for a marked passage of so many tokens.", show_default=False),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option("--html", help="Write a page with the tokens coloured to this file.", show_default=False),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Look for a watermark in a text."""
    with errors_in_one_line(traceback):
        mark = configured(config, scheme, key_from, settings)
        text = read_text(file)
        found, pieces = run(mark, text, tokenizer, model, device, fpr, window)
        if picture is not None:
            from ..watermark.picture import page

            Path(picture).write_text(page([pieces], [found], file), encoding="utf-8")
    if as_json:
        print_json(found.model_dump())
        return
    verdict = {True: "marked", False: "no mark found", None: "cannot tell"}[found.marked]
    typer.echo(f"{verdict}: p = {found.p_value:.3g} (at most {fpr:g} would be a mark), z = {found.score:.2f}")
    typer.echo(f"tokens: {found.tokens} of {len(pieces)} counted")
    if found.passage is not None:
        begin, end = found.passage
        typer.echo(f"passage: tokens {begin} to {end}: {' '.join(''.join(pieces[begin:end]).split())[:200]}")
    if found.note:
        typer.echo(f"note: {found.note}")


def configured(config: str | None, scheme: str | None, key_from: str | None, settings: list[str] | None) -> Any:
    """The configuration that the options mean.

    Raises:
        ParameterError: neither or both of config and scheme, or a setting that is not key=value.
    """
    from ..watermark.config import WatermarkingConfig

    if (config is None) == (scheme is None):
        raise ParameterError("give one of --config FILE and --scheme NAME")
    values: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals:
            raise ParameterError("one --set is not allowed; it has to read key=value")
        values[name.strip().replace("-", "_")] = parse_value(value)
    if scheme is not None:
        made = WatermarkingConfig(scheme, key_from=key_from, **values)
        made.validate()
        return made
    made = WatermarkingConfig.load(str(config), key_from=key_from)
    made.params |= values
    made.validate()
    return made


def read_text(file: str) -> str:
    """What is in the file, or on stdin for `-`."""
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{file!r} cannot be read as UTF-8 text: {error}") from error


def run(
    mark: Any, text: str, tokenizer: str | None, model: str | None, device: str | None, fpr: float, window: int | None
) -> tuple[Detection, list[str]]:
    """What is found, and the text of each token."""
    from ..contract.kinds import Kind
    from ..contract.traits import Trait
    from ..plugins.registry import registry
    from . import models

    reads = Trait.READS_MODEL in registry().get(Kind.WATERMARKERS, mark.scheme).traits
    loaded: Any = None
    words: Any = None
    if reads or model is not None or tokenizer is None:
        loaded, words = models.load(model, device)
    if tokenizer is not None:
        from ..watermark.detection import load_tokenizer

        words = load_tokenizer(tokenizer)
    from ..watermark.detection import detect

    ids: list[int] = words(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise GenmodeError("the text has no tokens; there is nothing to look at")
    mark.check_tokenizer(words)
    found: Detection = detect(ids, mark, tokenizer=words, model=loaded, fpr=fpr, window=window)
    return found, pieces_of(words, ids)


def pieces_of(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text that each token adds to the ones before it, so that split characters appear once, whole."""
    pieces: list[str] = []
    for end in range(1, len(ids) + 1):
        recent = ids[max(0, end - 8) : end]
        before = tokenizer.decode(recent[:-1], clean_up_tokenization_spaces=False)
        after = tokenizer.decode(recent, clean_up_tokenization_spaces=False)
        shown = after[len(before.rstrip("\ufffd")) :]
        pieces.append("" if shown.endswith("\ufffd") else shown)
    return pieces
