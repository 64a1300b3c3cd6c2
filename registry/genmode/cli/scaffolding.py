"""`genmode new`: a plugin package that passes the conformance checks as it is generated."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ..contract.kinds import COMPONENT_KINDS
from ..errors import GenmodeError, ParameterError
from ..version import __version__
from .output import TracebackOption, errors_in_one_line

LONGEST = 100
"""Letters of a name, which becomes part of file names."""

CALLS = {
    "strategy": 'genmode.generate(model, **inputs, strategy="@name@")',
    "processor": "genmode.generate(model, **inputs, @name@_penalty=2.0)",
    "criterion": 'genmode.generate(model, **inputs, criteria="@name@")',
    "drafter": 'genmode.generate(model, **inputs, draft="@name@")',
    "verification": 'genmode.generate(model, **inputs, do_sample=True, draft="prompt_lookup", verify="@name@")',
    "watermarker": 'genmode.generate(model, **inputs, do_sample=True, watermark=genmode.WatermarkingConfig("@name@", key=1234))',
}
FILES = {
    "pyproject.toml": "package/pyproject.toml.txt",
    "README.md": "package/README.md.txt",
    "tests/test_conformance.py": "package/test_conformance.py.txt",
    ".github/workflows/tests.yml": "package/ci.yml.txt",
    "src/@package@/__init__.py": "component/@noun@.py.txt",
    "src/@package@/py.typed": "",
}


def new(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="strategy, processor, criterion, watermarker, drafter or verification."),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The component's name, such as soft_top_k.")],
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where the package goes; ./genmode-NAME if not given.", show_default=False),
    ] = None,
    traceback: TracebackOption = False,
) -> None:
    """Start a plugin package: typed code, entry point, README, tests and CI."""
    with errors_in_one_line(traceback):
        place = Path(f"genmode-{name.replace('_', '-')}") if folder is None else folder
        for file in scaffold(kind, name, place):
            typer.echo(str(file))
    typer.echo(f'\ncd "{place}" && pip install -e ".[test]" && pytest')


def scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the package into a folder that does not exist or is empty; returns the files.

    Raises:
        ParameterError: there is no such kind, or the name is no plain one.
        GenmodeError: the folder has something in it, or cannot be written.
    """
    kinds = {one.noun: one.value for one in COMPONENT_KINDS}
    if kind not in kinds:
        raise ParameterError(f"there is no kind {kind!r}; it has to be one of {', '.join(kinds)}")
    if not re.fullmatch(rf"[a-z][a-z0-9_]{{0,{LONGEST - 1}}}", name) or keyword.iskeyword(name):
        shown = repr(name if len(name) <= LONGEST else f"{name[:LONGEST]}...")
        allowed = f"up to {LONGEST} small letters, digits and _, a letter first"
        raise ParameterError(f"{shown} cannot be the name; allowed are {allowed}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise GenmodeError(f"{str(folder)!r} is there already and not empty; give another --folder")
        return _written(kind, name, folder)
    except OSError as error:
        raise GenmodeError(
            f"{str(folder)[:200]!r} cannot be written: {error.strerror}; give another --folder"
        ) from error


def _written(kind: str, name: str, folder: Path) -> list[Path]:
    kinds = {one.noun: one.value for one in COMPONENT_KINDS}
    words = {
        "use": "import genmode\n\n" + CALLS[kind], "noun": kind, "kind": kinds[kind], "version": __version__.rpartition(".")[0],
        "distribution": f"genmode-{name.replace('_', '-')}", "package": f"genmode_{name}",
        "class": "".join(word.capitalize() for word in name.split("_")), "name": name,
    }  # fmt: skip
    written: list[Path] = []
    for target, template in FILES.items():
        text = _template(filled(template, words)) if template else ""
        file = folder / filled(target, words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(filled(text, words), encoding="utf-8")
        written.append(file)
    return written


def _template(path: str) -> str:
    found = files("genmode") / "templates"
    for part in path.split("/"):
        found = found / part
    return found.read_text(encoding="utf-8")


def filled(text: str, words: dict[str, str]) -> str:
    """The text with each `@word@` replaced."""
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
