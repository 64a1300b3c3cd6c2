"""Under a lock nothing of a distribution is imported but the files that were locked, however late and by whichever way."""

from __future__ import annotations

import importlib
import importlib.util
import os
import py_compile
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import genmode
from genmode.plugins.fingerprint import covered, fingerprint
from genmode.plugins.registry import Registry

from .lock_support import TRACE, locked, ran

pytestmark = pytest.mark.no_torch

Source = Callable[..., str]


@pytest.fixture
def path(site: Any, package: Path, tmp_path: Path) -> Path:
    """A lock of `plug`, with a module that its code imports when it is used."""
    (package / "late.py").write_text("WHAT = 'locked'\n" + TRACE)
    locked(site, tmp_path / "a.lock")
    return tmp_path / "a.lock"


@pytest.fixture
def loaded(site: Any, path: Path) -> Iterator[Registry]:
    """The registry of that lock, with the component loaded."""
    registry = site.registry(lock=path)
    registry.get("processors", "it")
    yield registry
    assert "evil.ran" not in ran(site)


@pytest.fixture
def spaced(site: Any, source: Source) -> Path:
    """Distribution `spaced`, whose module `spaced.inner` lies in a package without `__init__.py`; gives its folder."""
    site.add("spaced", entries={"processors": {"it": "spaced.inner:It"}})
    folder: Path = site.folder / "spaced"
    folder.mkdir()
    (folder / "inner.py").write_text(
        "try:\n    from . import helper\nexcept ImportError as error:\n    WHY = error\n" + source("processors", "It")
    )
    return folder


@pytest.mark.parametrize("file", ["helper.py", "helper/__init__.py", "helper.pyc", "deep/helper.py"])
@pytest.mark.parametrize("portion", ["site", "elsewhere"])
def test_a_module_that_is_added_to_a_namespace_package(
    site: Any, spaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, portion: str
) -> None:
    locked(site, tmp_path / "a.lock")
    folder = {"site": spaced, "elsewhere": tmp_path / "elsewhere" / "spaced"}[portion]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(TRACE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "elsewhere")])
    importlib.invalidate_caches()
    with pytest.raises(genmode.LockError, match=f"spaced/{file}"):
        site.registry(lock=tmp_path / "a.lock").get("processors", "it")
    assert not list(tmp_path.rglob("*.ran"))


def test_of_one_name_in_two_folders_the_one_that_is_imported_is_locked(
    site: Any, spaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = site.registry().components()
    other = tmp_path / "elsewhere" / "spaced"
    other.mkdir(parents=True)
    (other / "inner.py").write_text(TRACE)
    before = fingerprint(entries)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "elsewhere")])
    assert fingerprint(entries) == before
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    importlib.invalidate_caches()
    assert covered(entries)["spaced/inner.py"] == str(other / "inner.py")


def test_bytecode_in_the_cache_is_passed_over(site: Any, path: Path, package: Path, tmp_path: Path) -> None:
    source = package / "late.py"
    evil = tmp_path / "evil.py"
    evil.write_text("WHAT = 'evil'\n")
    cached = importlib.util.cache_from_source(str(source))
    py_compile.compile(
        str(evil), cached, dfile=str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    assert importlib.import_module("plug.late").WHAT == "evil"  # as Python does it
    del sys.modules["plug.late"], sys.modules["plug"]
    site.registry(lock=path).get("processors", "it")
    assert importlib.import_module("plug.late").WHAT == "locked"
    assert os.path.exists(cached)


@pytest.mark.usefixtures("loaded")
def test_a_file_that_changes_after_the_check_is_not_imported(package: Path) -> None:
    (package / "late.py").write_text("WHAT = 'evil'\n")
    with pytest.raises(genmode.LockError, match=r"plug\.late .* has changed since") as caught:
        importlib.import_module("plug.late")
    assert caught.value.name == "plug.late"


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("file", ["evil.py", "evil/__init__.py", "evil.abi3.so"])
def test_a_file_that_is_added_after_the_check_is_not_imported(package: Path, file: str) -> None:
    (package / file).parent.mkdir(exist_ok=True)
    (package / file).write_text(TRACE)
    importlib.invalidate_caches()
    with pytest.raises(genmode.LockError, match="not among the files"):
        importlib.import_module("plug.evil")


@pytest.mark.usefixtures("loaded")
def test_a_package_that_finds_modules_elsewhere_does_not_import_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "evil.py").write_text(TRACE)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("evil2.py", TRACE)
    plug: Any = importlib.import_module("plug")
    monkeypatch.setattr(plug, "__path__", [*plug.__path__, str(tmp_path / "more"), str(tmp_path / "more.zip")])
    for name in ("plug.evil", "plug.evil2"):
        with pytest.raises(genmode.LockError, match="not among the files"):
            importlib.import_module(name)


@pytest.mark.usefixtures("loaded")
def test_what_is_not_there_is_missing_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"plug\.no_such"):
        importlib.import_module("plug.no_such")


def test_bytecode_in_place_of_source_is_held_to_its_hash(site: Any, package: Path, tmp_path: Path) -> None:
    source = tmp_path / "bare.py"
    source.write_text("WHAT = 'locked'\n")
    py_compile.compile(str(source), str(package / "bare.pyc"))
    locked(site, tmp_path / "a.lock")
    registry = site.registry(lock=tmp_path / "a.lock")
    registry.get("processors", "it")
    assert importlib.import_module("plug.bare").WHAT == "locked"
    del sys.modules["plug.bare"]
    source.write_text("WHAT = 'evil'\n")
    py_compile.compile(str(source), str(package / "bare.pyc"))
    with pytest.raises(genmode.LockError, match="has changed since"):
        importlib.import_module("plug.bare")
    assert registry.settings.lock


def test_without_the_lock_imports_are_as_ever(site: Any, loaded: Registry, package: Path) -> None:
    (package / "late.py").write_text("WHAT = 'newer'\n")
    site.registry().get("processors", "it")
    assert importlib.import_module("plug.late").WHAT == "newer"
    assert loaded.settings.lock
