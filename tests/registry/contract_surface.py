"""The public surface of the contract as text, for a file that a test compares.

    python tests/registry/contract_surface.py      writes docs/contract.txt

Everything that a plugin or a caller may rely on: the names of genmode, the module of the contract, the session, and
the hooks, with signatures, class attributes, and the attributes that docstrings promise. A change of the file is a
change of the contract: say it in CHANGELOG.md, and see registry/genmode/deprecation.py.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

import genmode
from genmode import contract, hooks
from genmode.session import Companion, Forerunner, Rehearsal

FILE = Path(__file__).parents[2] / "docs" / "contract.txt"
HEAD = "# Written by `python tests/registry/contract_surface.py`; a test compares it. See CHANGELOG.md.\n"
CALLS = ("generate", "explain", "stream", "attach", "detach", "register", "components", "configure", "refresh", "trace")


def surface() -> str:
    """The whole text."""
    lines = [HEAD, f"CONTRACT_VERSION = {contract.CONTRACT_VERSION}", f"OLDEST_CONTRACT = {contract.OLDEST_CONTRACT}"]
    lines += ["", "genmode", *(f"  {name}" for name in sorted(genmode.__all__)), ""]
    lines += [f"genmode.{name}{signature(getattr(genmode, name))}" for name in CALLS]
    classes = [
        value for name, value in sorted(vars(contract).items())
        if not name.startswith("_") and isinstance(value, type) and value.__module__.startswith(contract.__name__)
    ]  # fmt: skip
    classes = list(dict.fromkeys(classes))
    for cls in (
        *classes,
        genmode.Session,
        genmode.Step,
        genmode.History,
        Companion,
        Forerunner,
        Rehearsal,
        hooks.Specifications,
    ):
        lines += ["", *described(cls)]
    return "\n".join(lines) + "\n"


def described(cls: Any) -> Iterator[str]:
    """A class and its public members, sorted."""
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    home = contract.__name__ if vars(contract).get(cls.__name__) is cls else cls.__module__
    yield f"class {home}.{cls.__qualname__}({bases})"
    if issubclass(cls, enum.Enum):
        yield from (f"  {member.name} = {int(member.value)}" for member in cls)
        return
    members: dict[str, str] = dict.fromkeys(promised(cls), "  (attribute)")
    for name, value in vars(cls).items():
        if name.startswith("_") and not (name == "__init__" and home == contract.__name__):
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
