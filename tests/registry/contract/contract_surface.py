"""The public surface of the contract as text, for a file that a test compares.

    python tests/registry/contract/contract_surface.py      writes docs/contract.txt

Everything that a plugin or a caller may rely on: the names of genmode, the module of the contract, the session, and
the hooks, with signatures, class attributes, and the attributes that docstrings promise. A change of the file is a
change of the contract: say it in CHANGELOG.md, and see registry/genmode/contract/deprecation.py.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

import genmode
from genmode import contract
from genmode.plugins import hooks

FILE = Path(__file__).parents[3] / "docs" / "contract.txt"
HEAD = "# Written by `python tests/registry/contract/contract_surface.py`; a test compares it. See CHANGELOG.md.\n"
PACKAGES = ("genmode", "genmode.contract", "genmode.host_sync", "genmode.sampling", "genmode.text", "genmode.watermark")
"""The public modules, and of each the names that it hands on."""

CALLS = ("generate", "explain", "stream", "attach", "detach", "register", "components", "configure", "refresh", "trace")


LIMITS = {"Session": 40, "Step": 14, "History": 8, "LogitsProcessor": 12}
"""How many public members these may have, so that the contract stays small enough to keep."""


def surface() -> str:
    """The whole text."""
    lines = [HEAD, f"CONTRACT_VERSION = {contract.CONTRACT_VERSION}", f"OLDEST_CONTRACT = {contract.OLDEST_CONTRACT}"]
    counts = ", ".join(f"{name} {count} of {LIMITS[name]}" for name, count in members().items())
    lines += ["", f"members: {counts}", ""]
    for package in PACKAGES:
        names = ", ".join(sorted(importlib.import_module(package).__all__))
        lines += [package, *(f"  {line}" for line in textwrap.wrap(names, 116)), ""]
    lines += [f"genmode.{name}{signature(getattr(genmode, name))}" for name in CALLS]
    classes = [getattr(contract, name) for name in contract.__all__]
    classes = [one for one in classes if isinstance(one, type)]
    for cls in (*sorted(set(classes), key=lambda one: one.__name__), hooks.Specifications):
        lines += ["", *described(cls)]
    return "\n".join(lines) + "\n"


def members() -> dict[str, int]:
    """How many public members the classes of `LIMITS` have, those of their bases not counted."""
    return {name: len(list(described(getattr(contract, name)))) - 1 for name in LIMITS}


def described(cls: Any) -> Iterator[str]:
    """A class and its public members, sorted."""
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    home = contract.__name__ if getattr(contract, cls.__name__, None) is cls else cls.__module__
    yield f"class {home}.{cls.__qualname__}({bases})"
    if issubclass(cls, enum.Enum):
        yield "  " + ", ".join(member.name for member in cls)
        return
    members: dict[str, str] = dict.fromkeys(promised(cls), "  (attribute)")
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, (classmethod, staticmethod)):
            members[name] = f"{type(value).__name__} {signature(value.__func__)}"
        elif inspect.isfunction(value):
            members[name] = signature(value)
        elif isinstance(value, property):
            writable = "" if value.fset is None else ", settable"
            members[name] = f"{annotation(inspect.signature(value.fget).return_annotation)} (property{writable})"  # type: ignore[arg-type]
        elif name != "model_config" and not inspect.ismemberdescriptor(value):
            declared = inspect.get_annotations(cls).get(name, inspect.Parameter.empty)
            members[name] = (
                f": {annotation(declared)} = {value!r}" if not isinstance(value, type) else f" = {value.__name__}"
            )
    if issubclass(cls, pydantic.BaseModel):
        members |= {name: f": {annotation(cls.__annotations__[name])} (field)" for name in cls.model_fields}
    yield from (
        f"  {name}{members[name]}".rstrip() if members[name][:1] in "(: " else f"  {name} {members[name]}"
        for name in sorted(members)
    )


def promised(cls: Any) -> list[str]:
    """Names in the "Attributes" of the docstring, and slots that are public."""
    text = inspect.getdoc(cls) or ""
    block = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", text, re.M)
    named = re.findall(r"^    (\w[\w, ]*):", block.group(1), re.M) if block else []
    slots = [name for name in getattr(cls, "__slots__", ()) if not name.startswith("_")]
    return [name.strip() for names in named for name in names.split(",")] + slots


def signature(function: Any) -> str:
    """`(a, *, b: int = 1) -> str`, the same in every version of Python."""
    parts: list[str] = []
    star = False
    for name, one in inspect.signature(function).parameters.items():
        if one.kind is one.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        prefix = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        star = star or one.kind is one.VAR_POSITIONAL
        typed = "" if one.annotation is one.empty else f": {annotation(one.annotation)}"
        default = "" if one.default is one.empty else f" = {one.default!r}"
        parts.append(f"{prefix}{name}{typed}{default}")
    result = inspect.signature(function).return_annotation
    arrow = "" if result is inspect.Signature.empty else f" -> {annotation(result)}"
    return f"({', '.join(parts)}){arrow}"


def annotation(value: Any) -> str:
    """An annotation as it is written; all modules here have theirs as text."""
    return (
        value
        if isinstance(value, str)
        else "Any"
        if value is inspect.Parameter.empty
        else getattr(value, "__name__", repr(value))
    )


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
    print(f"written: {FILE}")
