"""Built-in components and example plugins use the public contract alone, as any third party has to."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import genmode
from genmode import contract

from . import contract_surface

ROOT = Path(__file__).parents[3]
FILES = [
    file
    for pattern in ("strategies/**/*.py", "processors/**/*.py", "plugins_example/*/src/**/*.py")
    for file in sorted(ROOT.glob(pattern))
]
MODULES = (*contract_surface.PACKAGES, "genmode.testing")
SEEN_AS = {
    "session": contract.Session, "step": contract.Step, "context": contract.Context, "history": contract.History,
}  # fmt: skip
"""What a variable of this name is, or an attribute of it, in the code of components."""


def test_the_contract_is_small_enough_to_keep() -> None:
    for name, count in contract_surface.members().items():
        print(f"{name}: {count} of {contract_surface.LIMITS[name]} public members")
        assert count <= contract_surface.LIMITS[name]


def members(cls: type) -> set[str]:
    """Public members of a protocol or class."""
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")} | set(
        contract_surface.promised(cls)
    )


def reads(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(name, attribute, line) of every `name.attribute` and `self.name.attribute`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            yield name.lstrip("_"), node.attr, node.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_it_imports_public_names_alone(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "genmode":
            assert node.module in MODULES, f"line {node.lineno} imports from {node.module}"
            names = importlib.import_module(node.module).__all__
            modules = {name.rpartition(".")[2] for name in contract_surface.PACKAGES}
            strange = {alias.name for alias in node.names} - set(names) - modules
            assert not strange, f"line {node.lineno} takes {', '.join(sorted(strange))} of {node.module}"
        if isinstance(node, ast.Import):
            assert all(one.name in MODULES for one in node.names if one.name.partition(".")[0] == "genmode")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_it_reads_public_members_alone(file: Path) -> None:
    for name, attribute, line in reads(ast.parse(file.read_text(encoding="utf-8"))):
        if name in SEEN_AS:
            assert attribute in members(SEEN_AS[name]), f"line {line} reads {name}.{attribute}"
        if name == "genmode":
            assert attribute in genmode.__all__, f"line {line} reads genmode.{attribute}"


def test_the_test_sees_what_is_not_public() -> None:
    found = list(reads(ast.parse("self._session.engine.forward(step.raw)")))
    assert ("session", "engine", 1) in found
    assert ("step", "raw", 1) in found
    assert "engine" not in members(contract.Session)
    assert "raw" not in members(contract.Step)
    assert {"steps", "history", "replay"} <= members(contract.Session)
