"""`genmode doctor`: broken, outdated and conflicting plugins."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from genmode.plugins.registry import Registry, use
from genmode.plugins.settings import Settings

from .cli_support import run


class TestDoctor:
    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """An environment of its own: one good plugin, and what a test adds."""
        plugin(tmp_path, "good", "fine", "import genmode\nclass C(genmode.Strategy):\n contract_version = 1\n"
                                         " def decode(self, session, params): pass\n")  # fmt: skip
        monkeypatch.syspath_prepend(str(tmp_path))
        yield tmp_path
        for name in [name for name in sys.modules if name.startswith("doctored_")]:
            del sys.modules[name]

    def test_all_is_well(self, installed: Path) -> None:
        report, code = examined(installed)
        assert (report["ok"], code) == (True, 0)
        (good,) = report["components"]
        assert (good["name"], good["state"], good["contract_version"]) == ("fine", "loaded", 1)
        assert good["file"] == str(installed / "doctored_good.py")
        assert report["versions"]["torch"].startswith("2.")

    def test_broken_outdated_and_conflicting_plugins_are_each_named(self, installed: Path) -> None:
        plugin(installed, "broken", "crash", "raise OSError('no such library')")
        plugin(installed, "old", "late", "import genmode\nclass C(genmode.Strategy):\n contract_version = 0\n"
                                         " def decode(self, session, params): pass\n")  # fmt: skip
        plugin(installed, "rival", "fine", "raise RuntimeError('must not be imported')")
        report, code = examined(installed)
        assert (report["ok"], code) == (False, 1)
        faults = "\n".join(report["faults"])
        for part in ("no such library", "contract 0", "GENMODE_PREFER"):
            assert part in faults
        assert "must not be imported" not in faults
        states = {(one["distribution"], one["state"]) for one in report["components"]}
        assert {
            ("good", "conflict"),
            ("rival", "conflict"),
            ("broken", "broken"),
            ("old", "broken"),
        } <= states

    def test_impostors_are_named_and_never_imported(self, installed: Path) -> None:
        plugin(installed, "genmode", "greedy_search", "raise RuntimeError('must not be imported')")
        plugin(installed, "registered", "mine", "raise RuntimeError('must not be imported')")
        report, code = examined(installed)
        assert (report["ok"], code) == (False, 1)
        told = "\n".join(report["faults"])
        assert "'doctored_genmode:C' is in no package of genmode's" in told
        assert "'registered' is a word of genmode's settings" in told
        assert set(report["impostors"]) <= set(report["faults"])
        assert {one["distribution"] for one in report["components"]} == {"good"}

    def test_names_that_are_alike_and_trust_by_a_kind_are_told_of(self, installed: Path) -> None:
        fine = "import genmode\nclass C(genmode.Strategy):\n contract_version = 1\n def decode(self, session, params): pass\n"
        plugin(installed, "g00d", "other", fine)
        report, code = examined(installed, allow=("strategies:fine", "g00d:other"))
        assert (report["ok"], code) == (True, 0)
        assert report["impostors"] == [
            "the distributions g00d and good are easily taken for each other; are all meant?"
        ]
        assert report["warnings"] == [
            "setting `allow`: 'strategies:fine' trusts whichever distribution has it, now good; write 'good:fine' to trust that one"
        ]

    def test_stale_metadata_and_shared_keys_are_named(self, installed: Path, tmp_path: Path) -> None:
        key = (
            "import genmode\nclass C(genmode.Strategy):\n contract_version = 1\n"
            " class Params(genmode.Params):\n  both_have: int = 0\n def decode(self, session, params): pass\n"
        )
        plugin(installed, "one", "first", key)
        plugin(installed, "two", "second", key)
        stale = installed / "good-0.9.dist-info"  # the remains of an upgrade
        stale.mkdir()
        (stale / "entry_points.txt").write_text("[genmode.strategies]\nformer = doctored_good:Former\n")
        (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: good\nVersion: 0.9\n")
        report, code = examined(installed)
        assert (report["ok"], code) == (True, 0)
        (told,) = report["warnings"]
        assert "'both_have' is a parameter of strategy 'first' of one 1.0" in told
        assert "prefer={'parameters:both_have': DISTRIBUTION}" in told
        (hidden,) = report["shadowed"]
        assert hidden == (
            f"strategies:former of good 0.9 ({stale}) is hidden by another good ({installed / 'good-1.0.dist-info'}); "
            "remove the one that is out of date"
        )
        assert [(one["name"], one["state"]) for one in report["components"]] == [
            ("fine", "loaded"), ("first", "loaded"), ("second", "loaded"), ("former", "shadowed"),
        ]  # fmt: skip
        assert all(one["seconds"] > 0 for one in report["components"][:3])

    def test_text_names_the_fault(self, installed: Path) -> None:
        plugin(installed, "broken", "crash", "raise OSError('no such library')")
        with use(Registry(importlib_metadata.distributions(path=[str(installed)]))):
            result = run("doctor")
        assert result.exit_code == 1
        assert "no such library" in result.stdout
        assert "something is broken" in result.stdout


def plugin(place: Path, distribution: str, component: str, code: str) -> None:
    """Write an installed distribution with one strategy, class C of its module."""
    info = place / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genmode.strategies]\n{component} = doctored_{distribution}:C\n")
    (place / f"doctored_{distribution}.py").write_text(code)


def examined(place: Path, **settings: Any) -> tuple[Any, int]:
    with use(Registry(importlib_metadata.distributions(path=[str(place)]), Settings(**settings))):
        result = run("doctor", "--json")
    return json.loads(result.stdout), result.exit_code
