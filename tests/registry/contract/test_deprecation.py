"""Deprecations of the contract warn the author, not the user."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import genmode
from genmode import contract
from genmode.cli.doctor import examine
from genmode.contract import deprecation
from genmode.contract.deprecation import ContractWarning, deprecated
from genmode.plugins import loading

Source = Callable[..., str]


@pytest.fixture
def second_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose contract is 2 and which still takes 1."""
    monkeypatch.setattr(contract, "CONTRACT_VERSION", 2)


def test_the_former_contract_is_accepted_and_the_author_is_told(
    site: Any, source: Source, second_contract: None
) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It"))
    site.plugin("new", "processors", "new", source("processors", "It", contract="contract_version = 2"))
    site.plugin("old", "processors", "old", source("processors", "It", contract="contract_version = 0"))
    host = site.registry()
    with pytest.warns(ContractWarning) as caught:
        host.get("processors", "dry")
    (told,) = caught
    assert told.filename == str(site.folder / "plug.py")  # the author's file
    assert told.lineno == 5
    assert "processor 'dry' of plug 1.0" in str(told.message)
    assert "was written for contract 1; state 2 after reading CHANGELOG.md" in str(told.message)
    host.get("processors", "new")  # warnings are errors here
    with pytest.raises(
        genmode.ContractVersionError, match=r"contract 0, .* offers contract 2 and accepts 1; upgrade old"
    ):
        host.get("processors", "old")


@pytest.mark.parametrize("version", ["True", "1.0", "'1'", "3"])
def test_what_is_no_accepted_number_is_refused(site: Any, source: Source, second_contract: None, version: str) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It", contract=f"contract_version = {version}"))
    with pytest.raises(genmode.ContractVersionError, match=r"plug 1\.0"):
        site.registry().get("processors", "dry")


def test_doctor_shows_it(site: Any, source: Source, second_contract: None) -> None:
    site.plugin("plug", "processors", "dry", source("processors", "It"))
    report = examine(site.registry())
    assert report["ok"]
    (told,) = report["warnings"]
    assert "written for contract 1" in told


def test_pythons_own_filters_hide_it_from_users(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "mine", source("processors", "It"))
    code = (
        "import json, sys; sys.path.append(sys.argv[1]); import genmode.contract\n"
        "genmode.contract.CONTRACT_VERSION = 2\n"
        "print(json.dumps(genmode.Registry().get('processors', 'mine').__name__))"
    )
    for options, expected in (([], False), (["-W", "always::PendingDeprecationWarning"], True)):
        done = subprocess.run(
            [sys.executable, *options, "-c", code, str(site.folder)], capture_output=True, text=True, timeout=60
        )
        assert (json.loads(done.stdout), "ContractWarning" in done.stderr) == ("It", expected), done.stderr


def test_a_member_that_plugins_define(site: Any, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "DEPRECATED", {"LogitsProcessor.reset": "use `begin`"})
    site.plugin("plug", "processors", "dry", source("processors", "It") + "    def reset(self): ...\n")
    site.plugin("fine", "processors", "fine", source("processors", "It"))
    host = site.registry()
    with pytest.warns(ContractWarning, match="defines reset, which is deprecated; use `begin`"):
        host.get("processors", "dry")
    host.get("processors", "fine")


def test_a_function_that_plugins_call() -> None:
    class Session:
        @deprecated(2, "call `lengths`")
        def counts(self, scale: int) -> int:
            return 3 * scale

    with pytest.warns(
        ContractWarning, match=r"Session\.counts is deprecated since contract 2; call `lengths`"
    ) as caught:
        assert Session().counts(2) == 6
    assert caught[0].filename == __file__  # whoever calls it
    assert Session.counts.__name__ == "counts"


def test_a_hook_plugin_of_the_former_contract(second_contract: None) -> None:
    @genmode.hookimpl
    def genmode_session_end(session: Any) -> None: ...

    plugin = SimpleNamespace(genmode_session_end=genmode_session_end, contract_version=1)
    entry = loading.Entry("hooks", "watch", "plug", "1.0", "plug", "")
    with pytest.warns(ContractWarning, match=r"hook plugin 'watch' of plug 1\.0 .* was written for contract 1"):
        loading.check(plugin, entry)


def test_the_oldest_contract_is_the_last_or_this_one() -> None:
    assert contract.OLDEST_CONTRACT in (contract.CONTRACT_VERSION - 1, contract.CONTRACT_VERSION)
