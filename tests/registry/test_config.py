"""The generation config's promises, kept for components' keys: checks, modes, updates, copies."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM
from transformers.generation.configuration_utils import GenerationMode

import genmode
from genmode.config import named_in
from genmode.errors import ParameterError, UnknownComponentError
from genmode.plugins.parameters import flag_defaults, foreign_values, plugin_values
from genmode.plugins.registry import Registry, registry, use

from .config_support import Power, Stopper, model_config

pytestmark = pytest.mark.usefixtures("parts")

Source = Callable[..., str]


# construction and validation


def test_keys_of_components_are_kept_and_checked() -> None:
    config = genmode.GenerationConfig(xtc_probability=0.5, top_k=5, do_sample=True)
    assert (config.xtc_probability, config.top_k) == (0.5, 5)
    assert plugin_values(vars(config), registry()) == foreign_values(vars(config)) == {"xtc_probability": 0.5}
    with pytest.raises(
        ParameterError, match=r"processor 'xtc' of this program .*xtc_probability=2 is not allowed.*<= 1"
    ):
        genmode.GenerationConfig(xtc_probability=2)


@pytest.mark.parametrize(
    ("key", "near"),
    [("xtc_probabilty", "xtc_probability"), ("temprature", "temperature"), ("strategi", "strategy")],
)
def test_a_key_that_nothing_knows_is_an_error_with_the_closest(key: str, near: str) -> None:
    with pytest.raises(
        ParameterError, match=rf"unknown key of a generation config: '{key}' \(did you mean '{near}'\?\)"
    ):
        genmode.GenerationConfig(**{key: 1})


def test_attributes_set_later_are_checked_by_validate() -> None:
    config = genmode.GenerationConfig()
    config.xtc_threshold = -1
    with pytest.raises(ParameterError, match="xtc_threshold=-1"):
        config.validate()
    config.xtc_threshold = None
    config.validate()
    config.xtc_treshold = 1
    with pytest.raises(ParameterError, match="xtc_treshold"):
        config.validate()


def test_components_are_named_by_keys() -> None:
    config = genmode.GenerationConfig(strategy="power", processors=["xtc"], criteria=("stopper",))
    assert named_in(config) == [
        ("strategies", "power"),
        ("processors", "xtc"),
        ("criteria", "stopper"),
    ]
    with pytest.raises(UnknownComponentError, match=r"did you mean 'power'"):
        genmode.GenerationConfig(strategy="powr")
    for wrong in ({"strategy": ["power"]}, {"processors": "xtc"}, {"criteria": [Stopper]}):
        with pytest.raises(ParameterError, match="is not allowed in a config"):
            genmode.GenerationConfig(**wrong)


def test_a_named_component_checks_the_flags_that_it_reads() -> None:
    genmode.GenerationConfig(temperature=9.0, do_sample=True)
    with pytest.raises(ParameterError, match=r"strategy 'power' .*temperature=9"):
        genmode.GenerationConfig(strategy="power", temperature=9.0, do_sample=True)


def test_transformers_own_checks_stay() -> None:
    with pytest.raises(ValueError, match="max_new_tokens"):
        genmode.GenerationConfig(max_new_tokens=-1)


def test_without_components_keys_no_plugin_is_imported(site: Any) -> None:
    site.plugin("plug", "processors", "dry", "raise SystemExit(9)")
    with use(site.registry()):
        config = genmode.GenerationConfig(top_k=3, do_sample=True)
        config.update(temperature=0.5, attention_mask=torch.ones(1), past_key_values=object())
        config.to_json_string()
    assert "plug" not in sys.modules


# get_generation_mode


def test_the_mode_is_transformers_or_the_name_of_the_strategy() -> None:
    assert genmode.GenerationConfig(do_sample=True).get_generation_mode() is GenerationMode.SAMPLE
    assert genmode.GenerationConfig(num_beams=2).get_generation_mode() is GenerationMode.BEAM_SEARCH
    assert genmode.GenerationConfig(strategy="power").get_generation_mode() == "power"


def test_a_strategy_named_like_a_mode_is_that_mode(host: Registry) -> None:
    host.register(Power, name="sample")
    assert genmode.GenerationConfig(strategy="sample").get_generation_mode() is GenerationMode.SAMPLE


# update


def test_update_sets_what_is_known_and_returns_the_rest() -> None:
    config = genmode.GenerationConfig()
    mask = torch.ones(1, 2)
    rest = config.update(xtc_probability=0.5, top_k=3, do_sample=True, attention_mask=mask, labels=3, strategy="power")
    assert rest == {"attention_mask": mask, "labels": 3}
    assert (config.xtc_probability, config.top_k, config.strategy) == (0.5, 3, "power")
    with pytest.raises(ParameterError, match="xtc_probability=7"):
        config.update(xtc_probability=7)


def test_update_with_defaults_only_keeps_what_is_set() -> None:
    config = genmode.GenerationConfig(xtc_probability=0.5, strategy="power")
    rest = config.update(defaults_only=True, xtc_probability=0.1, xtc_threshold=0.3, processors=["xtc"])
    assert rest == {"xtc_probability": 0.1}  # as transformers' own: what is set already is returned
    assert (config.xtc_probability, config.xtc_threshold, config.processors) == (0.5, 0.3, ["xtc"])


def test_custom_entries_of_a_model_are_kept_and_components_keys_among_them_checked() -> None:
    config = genmode.GenerationConfig()
    assert config.update(allow_custom_entries=True, lang_to_id={"<|en|>": 1}, xtc_probability=0.25) == {}
    config.validate()
    assert config.lang_to_id == {"<|en|>": 1}
    assert plugin_values(vars(config), registry()) == {"xtc_probability": 0.25}
    with pytest.raises(ParameterError):
        config.update(allow_custom_entries=True, xtc_threshold=-1)


# among transformers' own


def test_copies_and_equality() -> None:
    config = genmode.GenerationConfig(xtc_probability=0.5, strategy="power", processors=["xtc"])
    for other in (
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
        genmode.GenerationConfig.from_dict(config.to_dict()),
    ):
        assert type(other) is genmode.GenerationConfig
        assert other == config
        assert hash(other) == hash(config)
        other.xtc_probability = 0.25
        assert other != config
    assert genmode.GenerationConfig(top_k=3, do_sample=True) == transformers.GenerationConfig(top_k=3, do_sample=True)
    assert not any(key.startswith("_carried") for key in config.to_dict())
    assert json.loads(config.to_json_string())["xtc_probability"] == 0.5


def test_a_config_of_transformers_takes_over_our_keys_and_ours_theirs(tmp_path: Path) -> None:
    config = genmode.GenerationConfig(xtc_probability=0.5, strategy="power")
    config.save_pretrained(tmp_path)
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert theirs.xtc_probability == 0.5
    assert named_in(theirs) == [("strategies", "power")]
    assert plugin_values(vars(theirs), registry()) == {"xtc_probability": 0.5}
    ours = genmode.GenerationConfig()
    ours.update(**theirs.to_dict(), defaults_only=True, allow_custom_entries=True)
    assert (ours.xtc_probability, ours.strategy) == (0.5, "power")
    assert genmode.GenerationConfig.from_dict(theirs.to_dict()) == ours


def test_transformers_generate_takes_our_config() -> None:
    model = LlamaForCausalLM(model_config()).eval()
    model.generation_config.odd_entry = {"a": 1}  # as Whisper's config carries
    model.generation_config.pad_token_id = 0
    ids = torch.tensor([[5, 6, 7]])
    config = genmode.GenerationConfig(max_new_tokens=4, xtc_probability=0.5, eos_token_id=2, pad_token_id=0)
    expected = model.generate(ids, max_new_tokens=4, eos_token_id=2, pad_token_id=0)
    assert torch.equal(model.generate(ids, generation_config=config), expected)
    seen: list[Any] = []

    def loop(model: Any, input_ids: Any, generation_config: Any, **kwargs: Any) -> Any:
        seen.append(generation_config)
        return input_ids

    power = genmode.GenerationConfig(strategy="power", power_alpha=2.0, max_new_tokens=4)
    model.generate(ids, generation_config=power, custom_generate=loop)
    assert type(seen[0]) is genmode.GenerationConfig
    assert (seen[0].strategy, seen[0].power_alpha, seen[0].odd_entry) == ("power", 2.0, {"a": 1})
    assert seen[0].max_length == 7
    assert '"power_alpha": 2.0' in repr(seen[0])  # although it holds tensors by now


def test_the_keys_of_transformers_and_their_defaults() -> None:
    known = {"temperature": 1.0, "top_k": 50, "penalty_alpha": None, "num_beam_groups": 1, "max_new_tokens": None}
    assert {key: flag_defaults()[key] for key in known} == known
    assert not any(key.startswith("_") for key in flag_defaults())


def test_nothing_warns_on_the_usual_paths(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genmode.GenerationConfig(xtc_probability=0.5).save_pretrained(tmp_path)
        genmode.GenerationConfig.from_pretrained(tmp_path)
