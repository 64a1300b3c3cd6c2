"""200 installed plugins, five of them broken in different ways: everything else works, each fault is named once."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import importlib_metadata
import pytest
import torch
from typer.testing import CliRunner

import genmode
from genmode.cli.app import app
from genmode.contract import COMPONENT_KINDS
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import prompt, tiny

Source = Callable[..., str]
BROKEN = ("bad-import", "bad-contract", "bad-metadata", "bad-twin", "bad-hook")
HOOK = "import genmode\n\n@genmode.hookimpl\ndef genmode_session_begin(session):\n    raise OSError('no audit log')\n"


@pytest.fixture
def crowd(site: Any, source: Source) -> Any:
    """195 good distributions with one component each, and five broken ones."""
    for n in range(195):
        kind = COMPONENT_KINDS[n % 4]
        text = source(kind, "It", f"plug_{n:03}_strength: float = 0.0")
        if kind == "strategies":
            text = text.replace(
                "params): ...",
                "params):\n        for step in session.steps():\n            step.commit(step.scores.argmax(-1))",
            )
        site.plugin(f"plug-{n:03}", kind, f"it_{n:03}", text)
    site.plugin("bad-import", "processors", "bad_import", "import a_library_that_is_not_there")
    site.plugin(
        "bad-contract", "processors", "bad_contract", source("processors", "It", contract="contract_version = 99")
    )
    site.add("bad-metadata", entries="[genmode.processors]\nbad metadata = bad_metadata:It\n")
    site.plugin("bad-twin", "processors", "it_001", source("processors", "It"))
    site.add("bad-hook", entries={"hooks": {"bad_hook": "bad_hook"}}, modules={"bad_hook": HOOK})
    return site


def everything(crowd: Any, **settings: Any) -> Registry:
    """The built-ins and the crowd."""
    own = importlib_metadata.distribution("genmode")
    return Registry([own, *crowd.distributions()], genmode.Settings(**settings))


def test_each_fault_is_named_once_and_all_else_works(crowd: Any) -> None:
    host = everything(crowd)
    with use(host):
        result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    for home, reason in {
        "bad-import": "No module named 'a_library_that_is_not_there'",
        "bad-contract": "was written for contract 99",
        "bad-metadata": "the name has odd characters",
        "bad-twin": "'it_001' is provided by",
    }.items():
        (told,) = [fault for fault in report["faults"] if home in fault]
        assert reason in told
        assert str(crowd.folder) in told  # the file
    assert len(report["faults"]) == 4  # the raising hook is off: it is not imported, and harms nobody
    assert report["warnings"] == []
    states = {(one["distribution"], one["state"]) for one in report["components"] if one["distribution"] != "genmode"}
    assert states == {
        *((f"plug-{n:03}", "loaded") for n in range(195) if n != 1),
        ("plug-001", "conflict"), ("bad-twin", "conflict"), ("bad-import", "broken"), ("bad-contract", "broken"),
        ("bad-hook", "disabled"),
    }  # fmt: skip
    assert "bad_hook" not in sys.modules
    with use(host):
        for n in range(195):
            if n != 1:
                assert host.get(COMPONENT_KINDS[n % 4], f"it_{n:03}")
        result = CliRunner().invoke(app, ["list"])
    assert [line for line in result.stderr.splitlines() if line.startswith("fault: ")] == [
        f"fault: {fault}" for fault in host.faults()
    ]


def test_calls_work_and_import_only_what_they_name(crowd: Any) -> None:
    model, inputs = tiny("llama"), prompt("llama", 2)
    flags: dict[str, Any] = {"max_new_tokens": 5, "do_sample": True, "top_p": 0.9, "seed": 3}
    with use(Registry([importlib_metadata.distribution("genmode")], genmode.Settings())):
        stock = genmode.generate(model, **inputs, **flags)
        greedy = genmode.generate(model, **inputs, max_new_tokens=5)
    with use(everything(crowd)), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(genmode.generate(model, **inputs, **flags), stock)
        assert not [name for name in sys.modules if name.startswith(("plug_", "bad_"))]
        assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=5, strategy="it_000"), greedy)
        assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=5, processors=["it_005"]), greedy)
        assert [name for name in sorted(sys.modules) if name.startswith(("plug_", "bad_"))] == ["plug_000", "plug_005"]
    with use(everything(crowd)), warnings.catch_warnings(record=True) as caught:  # whose key it is, they alone know
        warnings.simplefilter("always")
        assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=5, plug_009_strength=1.0), greedy)
        assert torch.equal(genmode.generate(model, **inputs, max_new_tokens=5, plug_013_strength=1.0), greedy)
    told = [str(warning.message) for warning in caught]
    assert len(told) == 2
    for home in ("bad-import 1.0", "bad-contract 1.0"):
        assert sum(home in one for one in told) == 1


def test_asking_for_each_broken_one_says_how_to_get_out(crowd: Any) -> None:
    host = everything(crowd)
    for name, error, way_out in (
        ("bad_import", genmode.PluginLoadError, "Repair or uninstall the package, or set block='bad-import'"),
        ("bad_contract", genmode.ContractVersionError, "upgrade genmode"),
        ("it_001", genmode.ConflictError, "GENMODE_PREFER=it_001=DISTRIBUTION"),
    ):
        with pytest.raises(error) as caught:
            host.get("processors", name)
        assert way_out in str(caught.value)
    with use(everything(crowd, hooks="bad-hook")), pytest.raises(genmode.GenmodeError) as raised:
        genmode.generate(tiny("llama"), **prompt("llama", 1), max_new_tokens=2)
    for part in ("hook plugin 'bad_hook' of bad-hook 1.0", str(crowd.folder), "no audit log", "the setting `hooks`"):
        assert part in str(raised.value)


def test_a_call_looks_at_no_more_of_the_registry_than_without_plugins(
    crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call does to the registry is counted, since time would depend on the machine: benchmarks/host.py."""
    from genmode.plugins.resolution import Slot

    counts: list[int] = []
    model, inputs = tiny("llama"), prompt("llama", 2)
    own = [importlib_metadata.distribution("genmode")]
    original = Slot.info
    monkeypatch.setattr(Slot, "info", lambda slot, candidate: counts.append(1) or original(slot, candidate))
    spent: list[int] = []
    for source in (own, [*own, *crowd.distributions()]):
        with use(Registry(source, genmode.Settings())):
            for _ in range(2):  # the first call loads what it names
                counts.clear()
                genmode.generate(model, **inputs, strategy="sample", processors=["min_p"], min_p=0.1, max_new_tokens=2)
        spent.append(len(counts))
    assert 0 < spent[0] == spent[1]
