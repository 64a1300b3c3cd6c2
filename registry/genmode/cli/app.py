"""The command line's tree of commands.

Building it imports typer and nothing heavier; each command imports what it needs when it runs. Exit codes:
0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import benching, checking, detecting, doctor, listing, locking, running, scaffolding

app = typer.Typer(
    name="genmode",
    help="Decoding strategies, processors, stopping criteria and watermarkers for transformers, as plugins.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(listing.list_components)
app.command("show")(listing.show)
app.command("explain")(running.explain)
app.command("generate")(running.generate)
app.command("detect")(detecting.detect)
app.command("doctor")(doctor.doctor)
app.command("new")(scaffolding.new)
app.command("check")(checking.check)
app.command("bench")(benching.bench)
app.command("lock")(locking.lock)


def main() -> None:
    """Run the command line on `sys.argv`; ends by SystemExit."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"genmode {version('genmode')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options before the command."""
