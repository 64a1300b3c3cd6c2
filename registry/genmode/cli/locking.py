"""`genmode lock`: pin the distributions that provide components, or hold what is installed against a lock."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..errors import LockError
from .output import FAILED, JsonOption, TracebackOption, errors_in_one_line, print_json

DEFAULT = "genmode.plugins.lock"


def lock(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="By default GENMODE_LOCK, else genmode.plugins.lock.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; say what would be refused, and exit with 1 if anything would."),
    ] = False,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Write down which distribution provides which component, with the hash of every file; imports none.

    What the settings in force allow is locked. Set GENMODE_LOCK=FILE to load nothing else. --check prints one line for each
    difference and each component that would be refused, `differs: ...` and `refused: ...`, for a step of CI.
    """
    from ..plugins.registry import registry

    path = os.path.abspath(file or os.environ.get("GENMODE_LOCK") or DEFAULT)
    with errors_in_one_line(traceback):
        if check:
            from ..plugins.lock import Lock

            made = Lock.read(path)
            told, refused = registry().unlocked(made), registry().refused(made)
        else:
            made, told, refused = registry().lock(path), [], []
            try:
                made.write()
            except OSError as error:
                raise LockError(f"{path} cannot be written: {error}; name a file in a folder that can") from error
    if as_json:
        print_json({"lock": path, "ok": not (told or refused), "differences": told, "refused": refused})
    elif check:
        for kind, sentences in (("differs", told), ("refused", refused)):
            for one in sentences:
                typer.echo(f"{kind}: {' '.join(one.split())}")
        typer.echo("something would be refused" if told or refused else "all is as locked")
    else:
        parts = [
            f"{name} {one.version}: {len(one.files)} files, "
            + ", ".join(f"{kind}:{bare}" for (kind, bare), home in sorted(made.components.items()) if home == name)
            for name, one in made.distributions.items()
        ]
        for part in parts or ["no third-party plugin may be loaded"]:
            typer.echo(part)
        typer.echo(f"written: {path}")
    if told or refused:
        raise typer.Exit(FAILED)
