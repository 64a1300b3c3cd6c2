"""Loading: failures stay with the plugin that failed, and name it and their cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from genmode.errors import ContractVersionError, PluginLoadError

pytestmark = pytest.mark.no_torch

Source = Callable[..., str]


def test_asking_for_a_malformed_entry_names_the_fault(site: Any) -> None:
    site.add("plug", entries="[genmode.criteria]\nstop = not an object\n")
    with pytest.raises(PluginLoadError, match=r"criteria:stop of plug 1\.0: 'not an object' names no object"):
        site.registry().get("criteria", "stop")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("raise RuntimeError('boom')", PluginLoadError, "RuntimeError: boom"),
        ("import sys; sys.exit(3)", PluginLoadError, "SystemExit: 3"),
        ("x = ", PluginLoadError, "SyntaxError"),
        ("It = None", PluginLoadError, "is an object of type NoneType"),
        ("import os as It", PluginLoadError, "is a module"),
        (
            "class It: pass",
            PluginLoadError,
            r"derives from object; it has to derive from genmode\.LogitsProcessor",
        ),
        ("strategy", PluginLoadError, r"derives from Strategy, Component"),
        ("unstated", ContractVersionError, "contract_version = 1"),
        ("newer", ContractVersionError, "contract 2, and this genmode offers contract 1; upgrade genmode"),
        ("older", ContractVersionError, "contract 0, and this genmode offers contract 1; upgrade plug"),
        ("empty", PluginLoadError, r"does not define process\(\)"),
        ("params", PluginLoadError, "Params has to be a class derived from"),
    ],
)
def test_a_broken_plugin_is_refused_with_names_and_cause(
    site: Any, source: Source, text: str, error: type[Exception], message: str
) -> None:
    sources = {
        "strategy": source("strategies", "It"),
        "unstated": source("processors", "It", contract=""),
        "newer": source("processors", "It", contract="contract_version = 2"),
        "older": source("processors", "It", contract="contract_version = 0"),
        "empty": "import genmode\nclass It(genmode.LogitsProcessor):\n    contract_version = 1\n",
        "params": source("processors", "It").replace("    contract", "    Params = dict\n    contract"),
    }
    site.plugin("plug", "processors", "dry", sources.get(text, text))
    host = site.registry()
    for _ in range(2):  # the second time as the first
        with pytest.raises(error, match=message) as caught:
            host.get("processors", "dry")
        assert "plug 1.0" in str(caught.value)
        assert type(caught.value) is error
    if message.partition(":")[0] in ("RuntimeError", "SystemExit"):
        assert type(caught.value.__cause__).__name__ == message.partition(":")[0]
    (info,) = host.components()
    assert info.state == "broken"
    (fault,) = host.faults()
    assert (fault.distribution, fault.name) == ("plug", "dry")


def test_a_watermarker_needs_its_detector(site: Any, source: Source) -> None:
    site.plugin("plug", "watermarkers", "kgw", source("processors", "It").replace("LogitsProcessor", "Watermarker"))
    with pytest.raises(PluginLoadError, match=r"does not define evidence\(\)"):
        site.registry().get("watermarkers", "kgw")


def test_a_repaired_plugin_loads_after_refresh(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "dry", "raise RuntimeError('boom')")
    host = site.registry()
    with pytest.raises(PluginLoadError):
        host.get("processors", "dry")
    (site.folder / "plug.py").write_text(source("processors", "It") + "# repaired\n")
    host.refresh()
    assert host.get("processors", "dry").name == "dry"
