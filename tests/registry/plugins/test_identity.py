"""No distribution has what a name stands for by calling itself so."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

import genmode
from genmode.errors import DisabledError
from genmode.plugins import identity
from genmode.plugins.discovery import scan
from genmode.plugins.identity import RESERVED, Claim, claim, host_of
from genmode.plugins.registry import Registry

Source = Callable[..., str]
TRACED = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a host of version 2.0, in a folder of their own; gives that folder."""
    home = tmp_path / "home"
    (home / "genmode").mkdir(parents=True)
    (home / "genmode" / "__init__.py").touch()
    monkeypatch.setattr(identity, "FILES", str((home / "genmode").resolve()))
    monkeypatch.setattr(identity, "__version__", "2.0")
    return home


def metadata(folder: Path, name: str = "genmode-2.0", **files: str) -> str:
    info = folder / f"{name}.dist-info"
    info.mkdir(parents=True)
    for file, text in files.items():
        (info / file.replace("_json", ".json")).write_text(text)
    return str(info)


LISTED = {"RECORD": "genmode/__init__.py,sha256=x,1\n"}


def direct(place: Path, editable: bool = True) -> dict[str, str]:
    return {"direct_url_json": json.dumps({"url": place.as_uri(), "dir_info": {"editable": editable}})}


def test_claims_by_hand(files: Path, tmp_path: Path) -> None:
    assert claim(metadata(files, **LISTED)) == Claim(3, True, True)
    assert claim(metadata(files, "GenMode-2.0", **LISTED)) == Claim(3, True, False)
    assert claim(metadata(files, "genmode-9.0", **LISTED)) == Claim(3, False, False)
    assert claim(metadata(tmp_path / "a", **direct(files))) == Claim(2, True, True)
    assert claim(metadata(files, "Genmode-1.0")) == Claim(1, False, False)
    elsewhere = [LISTED, direct(files, editable=False), direct(tmp_path / "other"), {"direct_url_json": "{"}, {}]
    assert [claim(metadata(tmp_path / f"{n}", **one)).shown for n, one in enumerate(elsewhere)] == [0, 0, 0, 0, 0]


def test_the_host_is_the_one_that_holds_the_files_wherever_it_stands(files: Path, tmp_path: Path) -> None:
    own = metadata(files, **LISTED)
    others = [metadata(tmp_path / "a", "genmode-99.0", **LISTED), metadata(files, "genmode-99.0", **LISTED)]
    others.append(metadata(tmp_path / "b", **direct(files)))
    for order in ([own, *others], [*others, own], [*others[:1], own, *others[1:]]):
        assert host_of(order) == own
    assert host_of(others[:1]) == others[0]  # the only one, which can offer objects of genmode's packages alone
    assert host_of([]) is None
    assert host_of([own, own]) == own


def test_two_that_cannot_be_told_apart_are_both_refused(files: Path, tmp_path: Path) -> None:
    pair = [metadata(tmp_path / "a", **direct(files)), metadata(tmp_path / "b", **direct(files))]
    assert host_of(pair) is None
    assert host_of(pair[:1]) == pair[0]


@pytest.mark.parametrize("name", ["genmode", "GenMode", "gen-mode"])
def test_another_genmode_offers_nothing_and_is_told_of(site: Any, name: str) -> None:
    folder = f"{name}-99.0.dist-info"
    text = "[genmode.strategies]\ngreedy_search = evil_host:It\n"
    site.add(name, "99.0", text, {"evil_host": TRACED}, folder=folder)
    own = list(importlib_metadata.distributions(name="genmode"))
    registry = Registry([*site.distributions(), *own], genmode.Settings(none=True))
    found = registry.get("strategies", "greedy_search")
    assert found.__module__ == "genmode_strategies.greedy_search"
    assert not list(site.folder.glob("*.ran"))
    told = [str(fault) for fault in registry.faults()]
    assert [folder in one for one in told] == [True] * (name != "gen-mode")  # which is another name


def test_an_own_component_is_of_an_own_package(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "FILES", str((site.folder / "genmode").resolve()))
    text = "[genmode.criteria]\na = evil:C\nb = genmode_evil:C\nc = genmode_processors.criteria:C\n"
    site.add("GenMode", "1.0", text, folder="genmode-1.0.dist-info")
    found = scan(site.distributions())
    assert [entry.name for entry in found.entries] == ["c"]
    assert [fault.name for fault in found.faults] == ["a", "b"]


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Registered", "HOOKS"])
def test_words_of_the_settings_are_no_distributions_name(site: Any, source: Source, name: str) -> None:
    site.plugin(name, "processors", "it", TRACED + source("processors", "It"))
    site.add(f"{name}.", entries={"hooks": {"watch": "evil_hook"}}, modules={"evil_hook": TRACED})
    registry = site.registry(none=True, hooks=(name,), prefer={"it": name})
    with pytest.warns(UserWarning, match="nothing is named|no component is named"):
        assert not registry.components()
    registry.hooks()
    assert not registry.owners("no_such_key")
    assert not list(site.folder.glob("*.ran"))
    assert any("word of genmode's settings" in str(fault) for fault in registry.faults())


def test_a_link_to_the_hosts_metadata_is_the_hosts(files: Path, tmp_path: Path) -> None:
    own = metadata(files, **LISTED)
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "genmode-2.0.dist-info").symlink_to(own)
    assert claim(str(tmp_path / "farm" / "genmode-2.0.dist-info")) == Claim(3, True, True)


def test_a_letter_that_becomes_another_where_case_is_dropped(site: Any) -> None:
    kelvin = "good-\u212aind"
    assert kelvin.lower() == "good-kind"
    site.add(
        kelvin, entries={"criteria": {"one": "m:C"}}, metadata=f"Metadata-Version: 2.1\nName: {kelvin}\nVersion: 1\n"
    )
    found = scan(site.distributions())
    assert not found.entries
    assert "letters that no distribution's name has" in str(found.faults[0])


def test_a_folder_with_another_name_than_its_metadata_is_a_fault(site: Any) -> None:
    stated = "Metadata-Version: 2.1\nName: good\nVersion: 1.0\n\nName: good-dist\n"
    site.add("good-dist", entries={"criteria": {"one": "m:C"}}, metadata=stated)
    found = scan(site.distributions())
    assert not found.entries
    assert "METADATA that it is 'good'" in str(found.faults[0])


def recorded(site: Any, version: str, name: str, right: bool = True) -> None:
    """A version of `plug` in the one folder, that offers a component of a module of its own."""
    info = site.add("plug", version, {"criteria": {name: f"{name}:C"}}, {name: TRACED})
    digest = hashlib.sha256(TRACED.encode() * right).digest()
    code = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"{name}.py,sha256={code},\n{info.name}/RECORD,,\n")


def test_two_that_stand_in_one_folder_and_offer_different_things_are_both_refused(site: Any) -> None:
    recorded(site, "1.0", "good")
    recorded(site, "99.0", "evil")
    registry = site.registry(allow=("plug",))
    assert not registry.components()
    assert ["plug-1.0" in str(fault) and "plug-99.0" in str(fault) for fault in registry.faults()] == [True]


def test_the_remains_of_an_upgrade_harm_nobody(site: Any) -> None:
    recorded(site, "1.0", "old", right=False)
    recorded(site, "2.0", "new")
    found = scan(site.distributions())
    assert [entry.name for entry in found.entries] == ["new"]
    assert not found.faults


def test_what_the_program_registers_is_trusted_and_nothing_beside_it(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "it", TRACED + source("processors", "It"))

    class Mine(genmode.LogitsProcessor):
        contract_version = 1

        def process(self, scores: Any, history: Any) -> Any:
            return scores

    registry = site.registry(none=True)
    registry.register(Mine)
    assert registry.get("processors", "mine") is Mine
    with pytest.raises(DisabledError):
        registry.get("processors", "it")
