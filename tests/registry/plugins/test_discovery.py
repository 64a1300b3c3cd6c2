"""From distributions to entries: by metadata alone, in an order of their own, no one harming another."""

from __future__ import annotations

import os
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from genmode.contract import COMPONENT_KINDS, Kind
from genmode.plugins.discovery import Entry, Fault, Metadata, canonical, parse, scan, unique, valid_name

pytestmark = pytest.mark.no_torch


def meta(name: str, text: str = "", version: str = "1.0", folder: str = "/a", complete: bool = True) -> Metadata:
    return Metadata(name, version, folder, f"{folder}/{name}-{version}.dist-info", complete, text)


def test_one_entry_by_hand(site: Any) -> None:
    path = site.add("My.Plugin", "1.2", {"processors": {"dry": "my_plugin.dry:Dry"}}, folder="my_plugin-1.2.dist-info")
    found = scan(site.distributions())
    assert found.entries == (Entry("processors", "dry", "my-plugin", "1.2", "my_plugin.dry:Dry", str(path)),)
    assert found.faults == found.shadowed == ()


def test_each_kind_has_a_group_and_hooks_are_no_component() -> None:
    text = "".join(f"[{kind.group}]\nx = m:C\n" for kind in Kind)
    assert [(entry.kind, type(entry.kind)) for entry in parse(meta("plug", text))[0]] == [(kind, str) for kind in Kind]
    assert list(Kind) == [*COMPONENT_KINDS, "hooks"]


@pytest.mark.parametrize(
    ("given_name", "expected"), [("My.Plugin", "my-plugin"), ("a__b-.c", "a-b-c"), ("x", "x"), (" X ", "x")]
)
def test_canonical(given_name: str, expected: str) -> None:
    assert canonical(given_name) == expected


@pytest.mark.parametrize("name", ["dry", "top_k", "x-1.2", "_a", "9"])
def test_valid_names(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a=b", "a,b", "-a", "a.", "ä", "a/b", "a\nb"])
def test_odd_names(name: str) -> None:
    assert not valid_name(name)


@pytest.mark.parametrize(
    ("text", "reason", "name"),
    [
        ("[genmode.processors]\nfoo bar = m:C", "odd characters", "'foo bar'"),
        ("[genmode.processors]\nfoo = not an object", "names no object", "foo"),
        ("[genmode.processors]\nfoo\n", "line 2", ""),
        ("[genmode.processors\nfoo = m:C", "line 1", ""),
        ("[genmode.strategy]\nfoo = m:C", "no group 'genmode.strategy'", ""),
        ("[genmode.processors]\nfoo = m:C\nfoo = m:D", "given twice", "foo"),
    ],
)
def test_a_malformed_line_is_one_named_fault(text: str, reason: str, name: str) -> None:
    entries, faults = parse(meta("plug", text))
    assert not entries
    assert [(f.distribution, f.version, f.name) for f in faults] == [("plug", "1.0", name)]
    assert reason in faults[0].reason


def test_lines_beside_a_malformed_one_count() -> None:
    text = "[console_scripts]\nx\n[genmode.criteria]\n# note\nbad\n"
    text += "same = m:C\nsame = m:C\nother = n : D.E [extra]\n"
    entries, faults = parse(meta("plug", text))
    assert [(e.name, e.value) for e in entries] == [("same", "m:C"), ("other", "n : D.E [extra]")]
    assert len(faults) == 1
    assert "line 5" in faults[0].reason


def test_files_that_cannot_be_read_harm_no_other(site: Any) -> None:
    for name in ("binary", "fine", "nameless"):
        site.add(name, entries={"criteria": {f"{name}_one": "m:C"}})
    (site.folder / "binary-1.0.dist-info" / "entry_points.txt").write_bytes(b"[genmode.criteria]\nx = \xff\xfe:C")
    (site.folder / "nameless-1.0.dist-info").rename(site.folder / "nameless.dist-info")
    (site.folder / "nameless.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    site.add("leftover", entries={"criteria": {"old": "m:C"}}, metadata=None)
    site.add("~half", entries={"criteria": {"half": "m:C"}})
    site.add("unrelated", entries="[console_scripts]\nx = \n\n[broken\n")
    found = scan(site.distributions())
    assert [e.name for e in found.entries] == ["fine_one"]
    assert [f.distribution for f in found.faults] == ["binary", "leftover", "nameless", "~half"]
    assert "METADATA" in found.faults[1].reason
    assert all(f.path for f in found.faults)


def test_other_packages_bytes_are_none_of_our_business(site: Any) -> None:
    info = site.add("other")
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\n\xff\xfe")
    assert scan(site.distributions()).faults == ()


def test_a_distribution_class_that_raises_is_one_fault(site: Any) -> None:
    class Hostile:
        @property
        def name(self) -> str:
            raise RuntimeError("boom")

    site.add("fine", entries={"criteria": {"one": "m:C"}})
    found = scan([Hostile(), *site.distributions(), Hostile()])
    assert [e.name for e in found.entries] == ["one"]
    assert len(found.faults) == 1
    assert "boom" in found.faults[0].reason


def test_a_finder_that_raises_keeps_what_was_found(site: Any) -> None:
    site.add("fine", entries={"criteria": {"one": "m:C"}})

    def broken() -> Any:
        yield from site.distributions()
        raise OSError("no such share")

    found = scan(broken())
    assert [e.name for e in found.entries] == ["one"]
    assert "no such share" in found.faults[0].reason


def test_first_on_the_path_wins_and_the_other_is_recorded(make_site: Any, tmp_path: Path) -> None:
    first, second = make_site(tmp_path / "a"), make_site(tmp_path / "b")
    first.add("plug", "1.0", {"criteria": {"one": "m:C"}})
    second.add("plug", "2.0", {"criteria": {"one": "m:C", "two": "m:D"}})
    found = scan(importlib_metadata.distributions(path=[str(first.folder), str(second.folder), str(first.folder)]))
    assert [(e.name, e.version) for e in found.entries] == [("one", "1.0")]
    assert [(e.name, e.version) for e in found.shadowed] == [("one", "2.0"), ("two", "2.0")]


def test_a_hider_without_entries_is_seen(make_site: Any, tmp_path: Path) -> None:
    first, second = make_site(tmp_path / "a"), make_site(tmp_path / "b")
    first.add("plug", "1.0")
    second.add("plug", "2.0", {"criteria": {"two": "m:D"}})
    found = scan(importlib_metadata.distributions(path=[str(first.folder), str(second.folder)]))
    assert not found.entries
    assert [e.name for e in found.shadowed] == ["two"]


def test_of_two_versions_in_one_folder_the_complete_then_the_higher_wins() -> None:
    old, new = meta("plug", version="9.0"), meta("plug", version="10.0")
    torn = meta("plug", version="11.0", complete=False)
    for order in ([old, new, torn], [torn, new, old], [new, torn, old]):
        kept, hidden = unique(order)
        assert kept == [new]
        assert sorted(hidden) == sorted([old, torn])


def test_a_link_to_the_same_folder_hides_nothing(site: Any, tmp_path: Path) -> None:
    site.add("plug", entries={"criteria": {"one": "m:C"}})
    os.symlink(site.folder, tmp_path / "link")
    found = scan(importlib_metadata.distributions(path=[str(site.folder), str(tmp_path / "link")]))
    assert len(found.entries) == 1
    assert not found.shadowed


def test_names_of_folders_that_do_not_tell_are_read_from_metadata(site: Any) -> None:
    site.add("my-plugin", "3.1", {"criteria": {"one": "m:C"}}, folder="my-plugin-3.1.dist-info")
    egg = site.add("develop", "0.3", {"criteria": {"two": "m:C"}}, folder="develop.egg-info")
    (egg / "METADATA").rename(egg / "PKG-INFO")
    old = site.add("old", "0.4", {"criteria": {"three": "m:C"}}, folder="old-0.4-py3.11.egg-info")
    (old / "METADATA").rename(old / "PKG-INFO")
    entries = scan(site.distributions()).entries
    assert {(e.name, e.distribution, e.version) for e in entries} == {
        ("one", "my-plugin", "3.1"),
        ("two", "develop", "0.3"),
        ("three", "old", "0.4"),
    }


def test_inside_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "plugs.zip", "w") as archive:
        archive.writestr("zipped-2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 2.0\n")
        archive.writestr("zipped-2.0.dist-info/entry_points.txt", "[genmode.criteria]\none = m:C\n")
    found = scan(importlib_metadata.distributions(path=[str(tmp_path / "plugs.zip")]))
    assert [(e.name, e.distribution, e.version) for e in found.entries] == [("one", "zipped", "2.0")]


def test_nothing_is_imported(site: Any) -> None:
    site.add("plug", entries={"criteria": {"one": "plug_traced:C"}}, modules={"plug_traced": "raise SystemExit(3)"})
    assert scan(site.distributions()).entries
    assert "plug_traced" not in sys.modules


def test_a_fault_reads_as_one_line() -> None:
    fault = Fault("plug", "1.0", "dry", "it is broken", "/x", "processors")
    assert str(fault) == "processors:dry of plug 1.0: it is broken (/x)"
    assert str(Fault("plug", "1.0", "", "it is broken", "/x")) == "plug 1.0: it is broken (/x)"


names = st.text("abcz_9", min_size=1, max_size=4).filter(valid_name)


@hypothesis_settings(deadline=None)
@given(
    st.lists(
        st.builds(
            lambda name, version, kind, entry: meta(f"d{name}".strip("_"), f"[{kind}]\n{entry} = m:C", version),
            names,
            st.sampled_from(["1.0", "1.10", "1.9", "2.0rc1"]),
            st.sampled_from([kind.group for kind in Kind]),
            names,
        ),
        max_size=12,
        unique_by=lambda m: (m.name, m.version),
    ),
    st.randoms(use_true_random=False),
)
def test_order_within_a_folder_never_matters(found: list[Metadata], shuffle: random.Random) -> None:
    def result(metadata: list[Metadata]) -> Any:
        kept, hidden = unique(metadata)
        return kept, sorted(hidden)

    mixed = list(found)
    shuffle.shuffle(mixed)
    assert result(mixed) == result(found)


@hypothesis_settings(deadline=None)
@given(st.permutations([f"d{i}" for i in range(6)]))
def test_entries_are_sorted_whatever_the_order(order: list[str]) -> None:
    class Fake:
        version = "1.0"

        def __init__(self, name: str) -> None:
            self.name = name
            self.entry_points = [
                importlib_metadata.EntryPoint(name="c", value="m:C", group="genmode.criteria"),
                importlib_metadata.EntryPoint(name="a", value="m:C", group="genmode.strategies"),
            ]

    entries = scan(Fake(name) for name in order).entries
    assert list(entries) == sorted(entries)
    assert [e.distribution for e in entries[:6]] == sorted(order)
