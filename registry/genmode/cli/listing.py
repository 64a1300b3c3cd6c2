"""`genmode list` and `genmode show`: what is installed, and what one component is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from ..contract.kinds import Kind
from .output import JsonOption, TracebackOption, console, errors_in_one_line, print_json

if TYPE_CHECKING:
    from ..contract import Params
    from ..plugins.registry import ComponentInfo

KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="strategies, processors, criteria, watermarkers, drafters, verifications or hooks.",
        show_default=False,
    ),
]
ATTRIBUTES = ("stage", "traits", "before", "after", "replaces", "flags", "needs", "mode", "selected_by", "drafts")
"""Class attributes of the contract that say what a component is; see `genmode.contract`."""
BOUNDS = {
    "gt": ">",
    "ge": ">=",
    "lt": "<",
    "le": "<=",
    "multiple_of": "multiple of",
    "min_length": "length >=",
    "max_length": "length <=",
    "pattern": "matches",
}
"""Attributes of pydantic's constraints, and how a reader writes them."""


def list_components(kind: KindOption = None, as_json: JsonOption = False, traceback: TracebackOption = False) -> None:
    """List the components of all plugins, importing none."""
    from ..plugins.registry import registry

    with errors_in_one_line(traceback):
        found = registry().components(_plural(kind))
        faults = registry().faults()
    if as_json:
        components = [_identity(info) for info in found]
        print_json({"components": components, "faults": [str(fault) for fault in faults]})
        return
    rows = [("kind", "name", "distribution", "version", "state")]
    rows += [(info.kind, info.name, info.distribution, info.version, info.state) for info in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # by hand: rich's tables would cost a fifth of the time that this command takes
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for fault in faults:
        typer.echo(f"fault: {fault}", err=True)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The component's name.")],
    kind: KindOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Show one component: paper, parameters and origin."""
    from ..plugins.registry import registry

    with errors_in_one_line(traceback):
        kind = _plural(kind) or registry().kind_of_name(name)
        component: Any = registry().get(kind, name)
        info = registry().info(kind, name)
        described = describe(info, component)
    if as_json:
        print_json(described)
    else:
        _print(described)


def describe(info: ComponentInfo, component: Any) -> dict[str, Any]:
    """All that is known of a loaded component, as plain data that `json` can write."""
    described = _identity(info) | {
        "file": info.file,
        "contract_version": getattr(component, "contract_version", None),
        "paper": getattr(component, "paper", ""),
        "doc": inspect.getdoc(component) or "",
    }
    for attribute in ATTRIBUTES:
        if hasattr(component, attribute):
            described[attribute] = _plain(getattr(component, attribute))
    if hasattr(component, "Params"):
        described["parameters"] = [_parameter(component.Params, key) for key in component.Params.model_fields]
    return described


def _identity(info: ComponentInfo) -> dict[str, Any]:
    keys = ("kind", "name", "distribution", "version", "value", "path", "state", "reason")
    return {key: getattr(info, key) for key in keys}


def _parameter(params: type[Params], key: str) -> dict[str, Any]:
    from pydantic_core import to_jsonable_python

    field = params.model_fields[key]
    required = field.is_required()
    bounds = {
        name: getattr(rule, name) for rule in field.metadata for name in BOUNDS if getattr(rule, name, None) is not None
    }
    return {
        "name": key,
        "type": _type_name(field.annotation),
        "bounds": to_jsonable_python(bounds, fallback=repr),
        "required": required,
        "default": None
        if required
        else to_jsonable_python(field.get_default(call_default_factory=True), fallback=repr),
        "help": field.description or "",
    }


def _type_name(annotation: Any) -> str:
    """The type as it is written, without pydantic's bounds and validators of what is inside."""
    if annotation is Ellipsis:
        return "..."
    inner = [one if isinstance(one, str) else _type_name(one) for one in get_args(annotation)]
    origin: Any = get_origin(annotation)
    if origin is Annotated:
        return inner[0]
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, get_args(annotation)))}]"
    if origin in (Union, UnionType):
        return " | ".join(inner)
    if origin is Callable:
        return "Callable"
    name = getattr(origin or annotation, "__name__", None) or repr(annotation)
    name = name.replace("NoneType", "None")
    return f"{name}[{', '.join(inner)}]" if inner else name


def _plain(value: Any) -> Any:
    import enum
    from collections.abc import Mapping

    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(one) for one in value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _print(described: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    out.print(f"{described['name']} ({described['kind']})", style="bold")
    if described["doc"]:
        out.print(described["doc"])
    out.print()
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("paper", described["paper"] or "none stated")
    facts.add_row("provided by", f"{described['distribution']} {described['version']}, {described['value']}")
    facts.add_row("file", described["file"] or "none")
    facts.add_row("contract", str(described["contract_version"]))
    for key in ATTRIBUTES:
        if described.get(key):
            value = described[key]
            facts.add_row(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    out.print(facts)
    if not described.get("parameters"):
        out.print("\nno parameters")
        return
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("parameter", "type", "bounds", "default"):
        table.add_column(title, no_wrap=True)
    table.add_column("help", overflow="fold")
    for one in described["parameters"]:
        bounds = ", ".join(f"{BOUNDS[rule]} {limit}" for rule, limit in one["bounds"].items())
        default = "required" if one["required"] else repr(one["default"])
        table.add_row(one["name"], one["type"], bounds, default, one["help"])
    out.print(table)


def _plural(kind: str | None) -> str | None:
    """The kind's plural, also for what one of the kind is called; a wrong one is left to the registry."""
    return next((one.value for one in Kind if kind in (one.noun, one.noun.split()[0])), kind)
