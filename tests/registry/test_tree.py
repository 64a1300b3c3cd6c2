"""Tests lie as what they test does: a module of tests beside each module's name, in the room of that name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_torch

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PACKAGES = {
    "registry": ROOT / "registry" / "genmode",
    "strategies": ROOT / "strategies" / "genmode_strategies",
    "processors": ROOT / "processors" / "genmode_processors",
}
MOST = 400
"""Lines of a module of tests, or of helpers for them."""

# What is about no one module of the three packages, and lies in a folder of its own.
APART: Mapping[str, str] = {
    "docs": "the pages, and what they say of the code",
    "fuzz": "random calls over everything, held against what every call promises",
    "interoperation": "other libraries that call genmode",
    "plugins_example": "the example plugins as wheels",
    "security": "the threat model of docs/security.md, a test for each line of it, across all rooms",
}

# What is about several modules of its room, or about how they go together.
ACROSS: Mapping[str, tuple[str, ...]] = {
    "registry": ("bad_input", "device_path", "imports", "layers", "memory", "robustness", "smollm2", "tree"),
    "registry/contract": ("contract_surface", "public_surface"),
    "registry/plugins": ("faulty_plugins", "many_plugins"),
    "registry/testing": ("kit", "row_checks", "strategy_checks", "watermarker_checks", "draft_checks"),
    "strategies": ("architectures", "config", "conformance", "cuda", "identity", "tensor_parallel"),
    "processors": ("adoption", "conformance", "device"),
    "processors/grammar": ("device", "json_schema_suite", "jump", "outputs", "reports"),
    "processors/truncation": ("narrowing", "truncation", "twins"),
    "processors/watermarks": ("device", "distribution", "schemes", "strategies", "twins"),
}


def subjects(module: Path) -> list[str]:
    """What a module of tests may be about by its name: `test_a_b.py` is about `a_b`, or about `b` of `a`."""
    words = module.stem.removeprefix("test_").split("_")
    return ["_".join(words[:end]) for end in range(len(words), 0, -1)]


def room_of(module: Path) -> str:
    return module.parent.relative_to(TESTS).as_posix()


def package_of(room: str) -> Path:
    home, *inner = room.split("/")
    return PACKAGES[home].joinpath(*inner)


MODULES = sorted(module for home in PACKAGES for module in (TESTS / home).rglob("test_*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(TESTS)))
def test_each_is_about_a_module_of_its_room(module: Path) -> None:
    room, names = room_of(module), subjects(module)
    if any(name in ACROSS.get(room, ()) for name in names):
        return
    package = package_of(room)
    assert any((package / f"{name}.py").is_file() for name in names), (
        f"{module.relative_to(ROOT)}: {package.relative_to(ROOT)} has no module of that name. Name it after the module "
        "that it is about and lay it into that module's room; if it is about several, name it in ACROSS"
    )


@pytest.mark.parametrize("room", ACROSS)
def test_what_is_about_several_modules_is_there_and_named_like_none(room: str) -> None:
    named = {name for module in MODULES if room_of(module) == room for name in subjects(module)}
    assert set(ACROSS[room]) <= named
    assert not [name for name in ACROSS[room] if (package_of(room) / f"{name}.py").exists()]


def test_every_folder_is_a_packages_or_says_what_it_is_about() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    assert folders == PACKAGES.keys() | APART.keys()


def test_none_is_long() -> None:
    modules = [*TESTS.rglob("*.py"), *(ROOT / "plugins_example").glob("*/tests/*.py")]
    assert len(modules) > len(MODULES)
    lengths = {str(one.relative_to(ROOT)): len(one.read_text(encoding="utf-8").splitlines()) for one in modules}
    assert not {name: length for name, length in lengths.items() if length > MOST}
