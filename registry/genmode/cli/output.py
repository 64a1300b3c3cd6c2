"""What all commands share: JSON on stdout, everything else that is not the answer on stderr, and errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GenmodeError, ParameterError, UnknownComponentError

if TYPE_CHECKING:
    from rich.console import Console

WRONG_USE = 2
FAILED = 1

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
TracebackOption = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]


@contextlib.contextmanager
def errors_in_one_line(traceback: bool) -> Generator[None]:
    """Turn an error into one line on stderr and an exit code, unless the traceback is wanted.

    Besides GenmodeError this takes ValueError, by which transformers refuses values of its own flags, and OSError, of files
    that cannot be read or written.
    """
    try:
        yield
    except (GenmodeError, ValueError, OSError) as error:
        if traceback:
            raise
        message = " ".join(str(error).split())
        typer.echo(f"genmode: {message}", err=True)
        failed = isinstance(error, (GenmodeError, OSError)) and not isinstance(
            error, (ParameterError, UnknownComponentError)
        )
        raise typer.Exit(FAILED if failed else WRONG_USE) from error


def print_json(data: Any) -> None:
    """Write data to stdout as JSON, pure ASCII, so that it survives any terminal."""
    json.dump(data, sys.stdout, indent=2)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps or colours what a script reads."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 10_000  # tables are cut at the width
    return made


@contextlib.contextmanager
def waiting(what: str) -> Generator[None]:
    """A moving line on the terminal while something takes its time; nothing in a log."""
    err = console(stderr=True)
    if not err.is_terminal:
        yield
        return
    with err.status(what):
        yield
