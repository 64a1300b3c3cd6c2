"""`genmode doctor`: load every plugin that may be loaded, and say what is wrong."""

from __future__ import annotations

import platform
import warnings
from typing import TYPE_CHECKING, Any

import typer

from ..contract.kinds import Kind
from ..errors import GenmodeError
from .output import FAILED, JsonOption, TracebackOption, console, errors_in_one_line, print_json, waiting

if TYPE_CHECKING:
    from ..plugins.discovery import Entry
    from ..plugins.registry import ComponentInfo, Registry

PACKAGES = ("genmode", "torch", "transformers", "pluggy", "pydantic")


def doctor(as_json: JsonOption = False, traceback: TracebackOption = False) -> None:
    """Load every plugin and say what is broken.

    The exit code is 1 if anything is.
    """
    from ..plugins.registry import registry

    with errors_in_one_line(traceback), waiting("loading all plugins"):
        report = examine(registry())
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report["ok"]:
        raise typer.Exit(FAILED)


def examine(registry: Registry) -> dict[str, Any]:
    """The state of everything installed, as plain data that `json` can write.

    What a setting disables is not imported. `ok` is false if a package is missing, a plugin is broken or in
    conflict, or a distribution takes a name that is not its own. `impostors` has these once more, and names that are
    only alike.
    """
    faults: list[str] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        contracts = {(info.kind, info.name): _contract(registry, info) for info in _all(registry)}
        try:
            registry.hooks()
        except GenmodeError as error:
            faults.append(str(error))
        components = [_line(info, contracts.get((info.kind, info.name))) for info in _all(registry)]
        faults += [str(fault) for fault in registry.faults()]
        shared = registry.shared_keys()
    suspects, shadowed = registry.suspects(), registry.shadowed()
    shared += registry.settings.by_name_alone([info.entry for info in _all(registry)])
    components += [_shadow(entry, why) for entry, why in shadowed.items()]
    # What is broken for its lock is told already.
    faults += [one for one in registry.unlocked() if not any(one in fault for fault in faults)]
    told = [str(warning.message) for warning in warned if not any(str(warning.message) in fault for fault in faults)]
    versions = {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}
    faults += [f"{package} is not installed" for package, found in versions.items() if found is None]
    return {
        "ok": not faults,
        "versions": versions,
        "components": components,
        "faults": faults,
        "warnings": list(dict.fromkeys([*told, *shared])),
        "impostors": suspects,
        "shadowed": list(shadowed.values()),
        "lock": registry.settings.lock or None,
    }


def _all(registry: Registry) -> tuple[ComponentInfo, ...]:
    return registry.components() + registry.components(Kind.HOOKS)


def _contract(registry: Registry, info: ComponentInfo) -> int | None:
    """The contract version of a component, which is loaded for it; None where that is not possible."""
    if info.state not in ("discovered", "loaded", "registered"):
        return None
    try:
        found: int | None = getattr(registry.get(info.kind, info.name), "contract_version", None)
    except GenmodeError:
        return None  # the registry keeps the reason, and faults() reports it
    return found


def _line(info: ComponentInfo, contract: int | None) -> dict[str, Any]:
    keys = ("kind", "name", "distribution", "version", "state", "reason", "file", "path", "seconds")
    alive = info.state in ("loaded", "registered")
    return {key: getattr(info, key) for key in keys} | {"contract_version": contract if alive else None}


def _shadow(entry: Entry, why: str) -> dict[str, Any]:
    known = {"state": "shadowed", "reason": why, "file": None, "seconds": None, "contract_version": None}
    return {key: getattr(entry, key) for key in ("kind", "name", "distribution", "version", "path")} | known


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    out.print(", ".join(f"{name} {found or 'missing'}" for name, found in report["versions"].items()))
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "distribution", "version", "state", "contract", "import ms", "file"):
        table.add_column(title, no_wrap=True)
    for line in report["components"]:
        cells = (line[key] for key in ("kind", "name", "distribution", "version", "state"))
        spent = "-" if line["seconds"] is None else f"{1000 * line['seconds']:.1f}"
        table.add_row(*cells, str(line["contract_version"] or "-"), spent, line["file"] or line["path"])
    out.print(table)
    if report["lock"]:
        out.print(f"lock: {report['lock']}")
    for key in ("faults", "impostors", "warnings", "shadowed"):
        for one in report[key]:
            out.print(f"{key.removesuffix('s')}: {' '.join(one.split())}")
    out.print("all is well" if report["ok"] else "something is broken; see the faults above")
