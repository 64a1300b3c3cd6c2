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
        bool, typer.Option("--check", help="Write nothing; exit code 1 if what is installed differs.")
    ] = False,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Write down which distribution provides which component, with the hash of every file; imports none.

    What the settings in force allow is locked. Set GENMODE_LOCK=FILE to load nothing else.
    """
    from ..plugins.registry import registry

    path = os.path.abspath(file or os.environ.get("GENMODE_LOCK") or DEFAULT)
    with errors_in_one_line(traceback):
        if check:
            from ..plugins.lock import Lock

            made = Lock.read(path)
            told = registry().unlocked(made)
        else:
            made, told = registry().lock(path), []
            try:
                made.write()
            except OSError as error:
                raise LockError(f"{path} cannot be written: {error}; name a file in a folder that can") from error
    if as_json:
        print_json({"lock": path, "differences": told})
    elif check:
        for one in told:
            typer.echo(one)
        typer.echo("differs" if told else "all is as locked")
    else:
        parts = [
            f"{name} {one.version}: {len(one.files)} files, "
            + ", ".join(f"{kind}:{bare}" for (kind, bare), home in sorted(made.components.items()) if home == name)
            for name, one in made.distributions.items()
        ]
        for part in parts or ["no third-party plugin may be loaded"]:
            typer.echo(part)
        typer.echo(f"written: {path}")
    if told:
        raise typer.Exit(FAILED)
