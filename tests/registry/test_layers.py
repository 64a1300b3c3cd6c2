"""The rooms of the host in one order: a room imports those below it alone, and no modules import each other in a cycle.

Every import counts: those for types and those inside of functions too. A name that a package hands on, as `from ..contract
import Params` takes one, counts as an import of the module that has it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import genmode
import genmode.cuda

pytestmark = pytest.mark.no_torch

HOST = Path(genmode.__file__).parent
ORDER = (
    "genmode", "cli", "testing", "api", "call", "tracing", "config", "watermark", "session", "cuda", "engines",
    "sampling", "text", "cuda.kernels", "plugins", "hf", "contract", "plan", "errors", "host_sync", "atomic", "lazy",
    "version",
)  # fmt: skip
"""From the top to the bottom. `genmode` is the package's own `__init__`, and modules at the top are rooms of their own."""


def modules() -> dict[str, Path]:
    """Every module of the host by its name."""
    found: dict[str, Path] = {}
    for file in sorted(HOST.rglob("*.py")):
        parts = ["genmode", *file.relative_to(HOST).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def room(module: str) -> str:
    """The room that a module is in: the longest name of `ORDER` that it begins with."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return next((name for name in names if name in ORDER), "genmode" if not parts else module)


def from_imports(module: str) -> Iterator[tuple[str, ast.alias]]:
    """(absolute name of the module, what is taken of it) of every `from ... import ...` of a module."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, node.module] if node.module else above)
            for alias in node.names:
                yield base, alias
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ast.alias("")


@cache
def handed_on(package: str) -> Mapping[str, str]:
    """The names that a package takes of its modules, and the module of each."""
    return {alias.name: base for base, alias in from_imports(package) if base.startswith(f"{package}.")}


def imported(module: str) -> set[str]:
    """The modules of the host that a module imports."""
    found: set[str] = set()
    for base, alias in from_imports(module):
        if f"{base}.{alias.name}" in MODULES:
            found.add(f"{base}.{alias.name}")
        elif base in MODULES:
            packaged = MODULES[base].name == "__init__.py" and not module.startswith(f"{base}.__")
            found.add(handed_on(base).get(alias.name, base) if packaged else base)
    return found - {module}


ARROWS = {module: imported(module) for module in MODULES}


def test_every_module_is_in_a_room() -> None:
    assert {room(module) for module in MODULES} == set(ORDER)


def test_rooms_import_only_rooms_below_them() -> None:
    rank = {name: place for place, name in enumerate(ORDER)}
    upward = [
        f"{module} imports {other}"
        for module, others in ARROWS.items()
        for other in sorted(others)
        if rank[room(other)] < rank[room(module)]
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_cycle() -> None:
    """Modules without imports are taken away until none is left; in a cycle none ever is without."""
    left = {module: set(others) for module, others in ARROWS.items() if MODULES[module].name != "__init__.py"}
    for others in left.values():
        others.intersection_update(left)
    while free := [module for module, others in left.items() if not others]:
        for module in free:
            del left[module]
        for others in left.values():
            others.difference_update(free)
    assert left == {}


def test_nothing_but_the_door_of_a_room_with_one_is_used() -> None:
    """What runs on CUDA stands behind two doors: the names of `genmode.cuda`, and the builder of its kernels."""
    doors = set(genmode.cuda.__all__)
    for module in MODULES:
        if module.startswith("genmode.cuda"):
            continue
        for base, alias in from_imports(module):
            if base == "genmode.cuda":
                assert alias.name in doors, f"{module} takes {alias.name} of genmode.cuda"
            else:
                assert not base.startswith("genmode.cuda.") or (base, alias.name) == (
                    "genmode.cuda.kernels",
                    "build",
                ), f"{module} imports {base}"
