"""What installed plugins can do, unnamed and named."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import json
import py_compile
import sys
import warnings
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
import torch
from typer.testing import CliRunner

import genmode
from genmode.cli.app import app
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import tiny

from ..registry.plugins.lock_support import TRACE, locked

PROMPT = torch.tensor([[5, 6, 7]])
HOOK = TRACE + "import genmode\n@genmode.hookimpl\ndef genmode_session_begin(session): ...\n"


def beside_built_ins(site: Any, **settings: Any) -> Registry:
    own = importlib_metadata.distributions(name="genmode")
    return Registry([*site.distributions(), *own], genmode.Settings(**settings))


def ran(site: Any) -> list[str]:
    return sorted(path.stem for path in Path(site.folder).rglob("*.ran"))


def test_an_unnamed_plugin_does_not_run(site: Any, source: Any) -> None:
    for number, kind in enumerate(("strategies", "processors", "criteria", "watermarkers")):
        site.plugin(f"plug-{number}", kind, f"it_{number}", TRACE + source(kind, "It"))
    site.add("watch", entries={"hooks": {"watch": "watch_hooks"}}, modules={"watch_hooks": HOOK})
    with use(beside_built_ins(site)):
        assert CliRunner().invoke(app, ["list"]).exit_code == 0
        genmode.generate(tiny("llama"), PROMPT, max_new_tokens=2, do_sample=True, top_k=5)
        genmode.explain(tiny("llama"), PROMPT, max_new_tokens=2, num_beams=2)
        genmode.GenerationConfig(max_new_tokens=2)
    assert ran(site) == []


def test_a_built_in_stays_in_force(site: Any, source: Any) -> None:
    site.plugin("plug", "strategies", "greedy_search", TRACE + source("strategies", "It"))
    registry = beside_built_ins(site)
    with use(registry), pytest.warns(RuntimeWarning, match="genmode's own stays in force"):
        genmode.generate(tiny("llama"), PROMPT, max_new_tokens=2)
    assert ran(site) == []


@pytest.mark.parametrize("name", ["genmode", "GenMode", "registered", "Registered"])
@pytest.mark.parametrize("settings", [{}, {"none": True}, {"allow": ("genmode",)}, {"allow": ("registered",)}], ids=str)
def test_a_name_that_stands_for_trust_is_not_had_by_taking_it(site: Any, name: str, settings: dict[str, Any]) -> None:
    folder = f"{name}-99.0.dist-info"
    text = "[genmode.strategies]\ngreedy_search = evil_code:It\n[genmode.hooks]\nwatch = evil_hook\n"
    site.add(name, "99.0", text, {"evil_code": TRACE, "evil_hook": HOOK}, folder=folder)
    registry = beside_built_ins(site, **settings)
    with use(registry), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in `allow` that nothing has
        genmode.generate(tiny("llama"), PROMPT, max_new_tokens=2)
    assert ran(site) == []
    assert any(folder in str(fault) for fault in registry.faults())


@pytest.mark.parametrize("setting", ["allow", "hooks"])
def test_a_name_of_two_is_trusted_in_neither(site: Any, source: Any, setting: str) -> None:
    site.plugin("good-dist", "processors", "good", TRACE + source("processors", "It"))
    names = {"processors": {"good-dist": "evil_code:It"}, "hooks": {"good-dist": "evil_hook"}}
    site.add("evil-dist", entries=names, modules={"evil_code": TRACE, "evil_hook": HOOK})
    site.add("good-hooks", entries={"hooks": {"watch": "good_hook"}}, modules={"good_hook": HOOK})
    if setting == "hooks":
        site.add("evil-hooks", entries={"hooks": {"good-hooks": "evil_hook"}})
        with pytest.raises(genmode.ConflictError, match="evil-hooks and good-hooks may be meant"):
            site.registry(hooks=("good-hooks",)).hooks()
        assert ran(site) == []
        return
    registry = site.registry(allow=("good-dist",))
    with pytest.warns(UserWarning, match="evil-dist and good-dist may be meant"):
        registry.components()
    with pytest.raises(genmode.DisabledError, match="write 'evil-dist:good-dist' or 'good-dist:\\*'"):
        registry.get("processors", "good-dist")
    assert ran(site) == []
    assert site.registry(allow=("good-dist:*",)).get("processors", "good")


@pytest.mark.parametrize("setting", ["allow", "hooks"])
def test_a_components_name_alone_is_no_trust(site: Any, setting: str) -> None:
    names = {"processors": {"good-dist": "evil_code:It"}, "hooks": {"good-dist": "evil_hook"}}
    site.add("evil-dist", entries=names, modules={"evil_code": TRACE, "evil_hook": HOOK})
    registry = site.registry(**{setting: ("good-dist",)})
    if setting == "hooks":
        with pytest.raises(genmode.ConflictError, match="write 'evil-dist:good-dist'"):
            registry.hooks()
    else:
        with pytest.warns(UserWarning, match="write 'evil-dist:good-dist'"):
            registry.components()
        with pytest.raises(genmode.DisabledError, match="does not say whose it is"):
            registry.get("processors", "good-dist")
        assert registry.owners("no_such_key") == []
    assert ran(site) == []


def test_a_second_metadata_folder_is_not_believed(site: Any, package: Path) -> None:
    info = site.folder / "plug-1.0.dist-info"
    digest = base64.urlsafe_b64encode(hashlib.sha256((package / "inner.py").read_bytes()).digest()).rstrip(b"=")
    (info / "RECORD").write_text(f"plug/inner.py,sha256={digest.decode()},\n")
    entries = {"processors": {"it": "evil_code:It"}}
    site.add("plug", "99.0", entries, {"evil_code": TRACE})
    other = "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n"
    site.add("trusted", "1.0", {"processors": {"other": "evil_code:It"}}, metadata=other)
    registry = site.registry(allow=("plug", "trusted"))
    for name in ("it", "other"):
        with pytest.raises(genmode.GenmodeError):
            registry.get("processors", name)
    assert len(registry.faults()) == 2
    assert ran(site) == []


@pytest.mark.parametrize("blocked", ["Evil_Dist", "evil.dist", "evil-dist:*", "evil_dist:it", "it", "processors:it"])
def test_block_holds_against_every_spelling(site: Any, blocked: str) -> None:
    site.plugin("evil-dist", "processors", "it", TRACE)
    registry = site.registry(block=(blocked,), allow=("evil-dist:it",), prefer={"it": "evil-dist"})
    with pytest.raises(genmode.DisabledError, match="blocked by"):
        registry.get("processors", "it")
    assert registry.owners("no_such_key") == []
    assert ran(site) == []


@pytest.mark.parametrize("attack", ["namespace", "bytecode", "late", "replaced"])
def test_a_lock_holds_for_every_import(site: Any, source: Any, tmp_path: Path, attack: str) -> None:
    site.add("spaced", entries={"processors": {"it": "spaced.inner:It"}})
    folder = site.folder / "spaced"
    folder.mkdir()
    (folder / "inner.py").write_text(source("processors", "It"))
    (folder / "late.py").write_text("WHAT = 'locked'\n")
    locked(site, tmp_path / "a.lock")
    registry = site.registry(lock=tmp_path / "a.lock")
    evil = tmp_path / "evil.py"
    evil.write_text("WHAT = 'evil'\n")
    if attack == "namespace":
        (folder / "helper.py").write_text(TRACE)
        with pytest.raises(genmode.LockError, match=r"spaced/helper\.py"):
            registry.get("processors", "it")
        assert ran(site) == []
        return
    registry.get("processors", "it")
    if attack == "bytecode":
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(evil), importlib.util.cache_from_source(str(folder / "late.py")), invalidation_mode=mode)
        assert importlib.import_module("spaced.late").WHAT == "locked"
        return
    (folder / f"{'late' if attack == 'replaced' else 'later'}.py").write_text(evil.read_text())
    importlib.invalidate_caches()
    with pytest.raises(genmode.LockError):
        importlib.import_module("spaced.late" if attack == "replaced" else "spaced.later")
    assert "spaced.late" not in sys.modules


def test_a_broken_plugin_harms_no_other(site: Any, source: Any) -> None:
    site.plugin("good", "processors", "good", source("processors", "It"))
    site.plugin("broken", "processors", "broken", "raise SystemExit(3)")
    info = site.add("unreadable", entries={"processors": {"x": "m:C"}})
    (info / "entry_points.txt").write_bytes(b"[genmode.processors]\nx = \xff:C\n")
    site.add("nameless", entries={"processors": {"y": "m:C"}}, metadata="Metadata-Version: 2.1\n")
    registry = beside_built_ins(site)
    assert registry.get("processors", "good").name == "good"
    with use(registry):
        assert genmode.generate(tiny("llama"), PROMPT, max_new_tokens=2).shape == (1, 5)
    with pytest.raises(genmode.PluginLoadError, match="SystemExit"):
        registry.get("processors", "broken")
    assert {"unreadable", "nameless", "broken"} <= {fault.distribution for fault in registry.faults()}


def test_doctor_tells_of_names_that_are_alike(site: Any, source: Any) -> None:
    site.plugin("genmodes", "processors", "Top-K", source("processors", "It"))
    site.plugin("gen-rnode", "processors", "other", source("processors", "It"))
    with use(beside_built_ins(site)):
        report = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    told = "\n".join(report["impostors"])
    for part in ("genmode and genmodes", "gen-rnode and genmode", "'Top-K' of genmodes and 'top_k' of genmode"):
        assert part in told


def test_a_failing_plugin_loses_no_tokens() -> None:
    class Fails(genmode.LogitsProcessor):
        contract_version = 1

        def process(self, scores: Any, history: Any) -> Any:
            if history.tokens.shape[1] >= 6:
                raise RuntimeError("no more")
            return scores

    whole = genmode.generate(tiny("llama"), PROMPT, max_new_tokens=8)
    with pytest.raises(genmode.DecodingError, match="no more") as caught:
        genmode.generate(tiny("llama"), PROMPT, max_new_tokens=8, processors=Fails())
    assert caught.value.sequences is not None
    assert torch.equal(caught.value.sequences, whole[:, :6])
