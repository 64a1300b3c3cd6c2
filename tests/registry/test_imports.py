"""What imports what: the host imports no plugin, and listing components imports nothing heavy."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import genmode

ROOM = Path(genmode.__file__).parent
HEAVY = ("torch", "transformers", "pydantic", "pluggy", "numpy", "genmode_strategies", "genmode_processors")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


@pytest.mark.parametrize("file", sorted(ROOM.rglob("*.py")), ids=lambda f: str(f.relative_to(ROOM)))
def test_the_host_imports_neither_strategies_nor_processors(file: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(ast.parse(file.read_text(encoding="utf-8")))}
    assert not tops & {"genmode_strategies", "genmode_processors"}


def run(code: str, *args: str) -> Any:
    """What a fresh interpreter prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.no_torch
def test_importing_genmode_imports_nothing_heavy() -> None:
    code = f"import json, sys, genmode; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert run(code) == []


@pytest.mark.no_torch
def test_listing_components_imports_nothing_heavy_and_no_plugin(site: Any, source: Any) -> None:
    site.plugin("traced", "processors", "trace_it", source("processors", "It"))
    code = (
        "import json, sys; sys.path.append(sys.argv[1]); import genmode\n"
        "names = [info.name for info in genmode.components()]\n"
        "genmode.Registry().faults(); genmode.configure(block='trace_it'); genmode.refresh()\n"
        f"print(json.dumps([names, [m for m in (*{HEAVY!r}, 'traced') if m in sys.modules]]))"
    )
    names, heavy = run(code, str(site.folder))
    assert "trace_it" in names
    assert heavy == []


@pytest.mark.no_torch
def test_importing_the_contract_imports_no_torch() -> None:
    names = "Strategy, Registry, hookimpl"
    code = f"import json, sys; from genmode import {names}; print(json.dumps('torch' in sys.modules))"
    assert run(code) is False


def test_what_a_type_checker_sees_is_what_is_imported() -> None:
    tree = ast.parse((ROOM / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    static = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert static == genmode._HOMES
    assert set(static) == set(genmode.__all__)


@pytest.mark.parametrize("name", genmode.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(genmode, name) is not None
    assert name in dir(genmode)


def test_no_module_has_a_public_name() -> None:
    """Importing such a module would put it in place of the name."""
    modules = {path.stem for path in ROOM.glob("*.py")} | {path.name for path in ROOM.iterdir() if path.is_dir()}
    assert not modules & set(genmode.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'generrate'"):
        genmode.generrate  # noqa: B018 - the attribute access is what is tested


def test_the_version_is_that_of_the_project() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    found = re.search(r'^version = "(.+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert genmode.__version__ == found[1]
