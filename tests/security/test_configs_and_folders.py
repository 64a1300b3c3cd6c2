"""What a stranger's config, model folder or prompt can have a call do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
import torch
import transformers

import genmode
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import tiny

from ..registry.plugins.lock_support import TRACE

PROMPT = torch.tensor([[5, 6, 7]])


def written(folder: Path, **values: Any) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(values))
    return folder


def test_a_config_loads_nothing_that_is_forbidden(site: Any, source: Any, tmp_path: Path) -> None:
    site.plugin("plug", "strategies", "it", TRACE + source("strategies", "It", "it_strength: float = 0.0"))
    written(tmp_path, strategy="it", it_strength=1.0)
    for settings in ({"none": True}, {"allow": "genmode"}, {"block": "plug"}):
        with use(site.registry(**settings)), pytest.raises(genmode.DisabledError):
            genmode.GenerationConfig.from_pretrained(tmp_path)
    assert not list(site.folder.glob("*.ran"))


def test_a_config_changes_no_setting(site: Any, tmp_path: Path) -> None:
    site.add("plug", entries={"hooks": {"watch": "watch_hooks"}}, modules={"watch_hooks": TRACE})
    registry = site.registry(none=True)
    before = registry.settings
    said = {"allow": ["plug"], "hooks": ["watch"], "none": False, "lock": "x", "prefer": {"a": "plug"}}
    with use(registry):
        genmode.GenerationConfig.from_pretrained(written(tmp_path, **said))
        assert not registry.hooks().origins
        assert registry.settings == before
    assert not list(site.folder.glob("*.ran"))


def test_a_config_that_needs_what_is_not_installed_says_so(host: Registry, tmp_path: Path) -> None:
    needs = {"it": {"kind": "strategies", "distribution": "genmode-evil", "version": "1.0"}}
    with pytest.raises(genmode.UnknownComponentError, match="not installed: pip install genmode-evil"):
        genmode.GenerationConfig.from_pretrained(written(tmp_path, genmode={"contract": 1, "needs": needs}))


@pytest.mark.parametrize("source", ["env:A_KEY", "file:/dev/zero", "file:/etc/hostname"])
def test_a_config_chooses_no_source_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("A_KEY", "12345")
    mark = {"scheme": "gumbel", "key_from": source}
    from_file = genmode.GenerationConfig.from_pretrained(
        written(tmp_path, watermarking_config=mark, do_sample=True, max_new_tokens=2)
    )
    (tmp_path / "mark.json").write_text(json.dumps(mark))
    calls: list[Any] = [
        lambda: genmode.generate(tiny("llama"), PROMPT, generation_config=from_file),
        lambda: genmode.detect([1] * 9, genmode.WatermarkingConfig.load(tmp_path / "mark.json")),
        lambda: genmode.GenerationConfig(watermarking_config=mark).watermarking_config.build(),
    ]
    for call in calls:
        with pytest.raises(genmode.ParameterError, match="what a file says is not read"):
            call()


def test_a_config_holds_no_object_of_a_call(tmp_path: Path) -> None:
    with pytest.raises(genmode.ParameterError, match="nothing that a config keeps"):
        genmode.GenerationConfig.from_pretrained(written(tmp_path, amateur_model="some/model"))


def test_code_in_a_model_folder_is_not_run_by_a_call(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    (tmp_path / "custom_generate").mkdir()
    for file in ("custom_generate/generate.py", "modeling_llama.py", "generation_config.py", "genmode.py"):
        (tmp_path / file).write_text(TRACE)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert genmode.generate(model, PROMPT, max_new_tokens=2).shape == (1, 5)
    assert not list(tmp_path.rglob("*.ran"))


def test_a_model_folders_config_is_a_config(site: Any, tmp_path: Path) -> None:
    site.plugin("plug", "strategies", "it", TRACE + "raise RuntimeError")
    tiny("llama").save_pretrained(tmp_path)
    written(tmp_path, strategy="it", max_new_tokens=2)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    registry = Registry(
        [*importlib_metadata.distributions(name="genmode"), *site.distributions()], genmode.Settings(none=True)
    )
    with use(registry):
        with pytest.raises(genmode.DisabledError, match="`none` is set"):
            genmode.generate(model, PROMPT)
        with pytest.raises(genmode.DisabledError, match="`none` is set"):
            model.generation_config = genmode.GenerationConfig.from_pretrained(tmp_path)
    assert not list(site.folder.glob("*.ran"))


def test_a_prompt_changes_no_plan() -> None:
    torch.manual_seed(0)
    prompts = [PROMPT, *torch.randint(0, 100, (20, 1, 3))]
    plans = {str(genmode.explain(tiny("llama"), one, max_new_tokens=2)) for one in prompts}
    assert len(plans) == 1
