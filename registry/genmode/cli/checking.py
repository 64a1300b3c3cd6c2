"""`genmode check`: the conformance checks of one component."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import ParameterError
from .output import FAILED, JsonOption, TracebackOption, console, errors_in_one_line, print_json, waiting
from .running import parse_value

COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def check(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="The component's name, or kind:name; a kind, for --list.", show_default=False
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print what is checked, and run nothing.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter to check with, as key=value; may be repeated.", show_default=False),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", help="A check to leave out, as check=reason; may be repeated.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Check that a component keeps the promises of the contract.

    The exit code is 1 if a check fails. With --list: every check by its name, what it is of, and what a component
    promises by it; of NAME's kind alone, or of all kinds.
    """
    with errors_in_one_line(traceback):
        if listed:
            _list(name, as_json)
            return
        if name is None:
            raise ParameterError("give the NAME of a component to check, or --list for what is checked")
        params = {key: parse_value(value) for key, value in _pairs("--set", settings).items()}
        reasons = _pairs("--skip", skip)
        with waiting(f"checking {name}"):
            from ..testing import check_component

            report = check_component(name, params, skip=reasons, raises=False)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(FAILED)


def _list(name: str | None, as_json: bool) -> None:
    from ..contract.kinds import COMPONENT_KINDS
    from ..plugins.registry import registry
    from ..testing.catalogue import checks_of

    wanted = name
    if name is not None and name not in list(COMPONENT_KINDS):
        kind, colon, _ = name.rpartition(":")
        wanted = kind if colon else registry().kind_of_name(name)
    found = [one for kind in COMPONENT_KINDS if wanted in (None, kind) for one in checks_of(kind)]
    if as_json:
        print_json({"checks": [{"kind": o.kind, "name": o.name, "explanation": o.explanation} for o in found]})
        return
    texts: dict[tuple[str, str], list[str]] = {}
    for one in found:
        texts.setdefault((one.name, one.explanation), []).append(one.kind)
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "of", "what a component promises"):
        table.add_column(column, overflow="fold")
    for (check_name, explanation), of in texts.items():
        table.add_row(check_name, "all" if len(of) == len(COMPONENT_KINDS) else ", ".join(of), explanation)
    console().print(table)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for one in given or ():
        key, equals, value = one.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ParameterError(f"{option} {one!r} is not allowed; it has to read name=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _print(report: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what it found", overflow="fold")
    for one in report.outcomes:
        told = one.message + (f"\n{one.check.explanation}" if one.status == "failed" else "")
        table.add_row(one.check.name, Text(one.status, style=COLOURS[one.status]), told)
    out.print(table)
    counts = {status: sum(one.status == status for one in report.outcomes) for status in COLOURS}
    out.print(f"\n{report.title}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
