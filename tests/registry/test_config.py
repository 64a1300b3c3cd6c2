"""The generation config's six promises, kept for components' keys; and the watermarking config."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.configuration_utils import GenerationMode

import genmode
from genmode.config import foreign_values, named_components, plugin_values, transformers_keys
from genmode.errors import (
    ContractVersionError,
    DisabledError,
    ParameterError,
    UnknownComponentError,
    UnsupportedError,
)
from genmode.registry import Registry, use
from genmode.settings import Settings

Source = Callable[..., str]


class Xtc(genmode.LogitsProcessor):
    contract_version = 1

    class Params(genmode.Params):
        xtc_probability: float = pydantic.Field(0.0, ge=0, le=1)
        xtc_threshold: float = pydantic.Field(0.1, ge=0)
        xtc_key: int = 0

    def process(self, scores: Any, history: Any) -> Any:
        return scores


class Power(genmode.Strategy):
    contract_version = 1

    class Params(genmode.Params):
        power_alpha: float = pydantic.Field(4.0, gt=1)
        temperature: float = pydantic.Field(1.0, lt=5)

    def decode(self, session: Any, params: Any) -> None: ...


class Stopper(genmode.StoppingCriterion):
    contract_version = 1

    def check(self, history: Any) -> Any: ...


class Kgw(genmode.Watermarker):
    contract_version = 1

    class Params(genmode.Params):
        bias: float = pydantic.Field(2.0, gt=0)
        key: int

    def process(self, scores: Any, history: Any) -> Any:
        return scores

    def detect(self, tokens: Any) -> Any: ...


@pytest.fixture(autouse=True)
def parts(host: Registry) -> Registry:
    for component in (Xtc, Power, Stopper, Kgw):
        host.register(component)
    return host


def saved(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "generation_config.json").read_text())
    return data


# construction and validation


def test_keys_of_components_are_kept_and_checked() -> None:
    config = genmode.GenerationConfig(xtc_probability=0.5, top_k=5, do_sample=True)
    assert (config.xtc_probability, config.top_k) == (0.5, 5)
    assert plugin_values(config) == foreign_values(config) == {"xtc_probability": 0.5}
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
    assert named_components(config) == [
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
    assert plugin_values(config) == {"xtc_probability": 0.25}
    with pytest.raises(ParameterError):
        config.update(allow_custom_entries=True, xtc_threshold=-1)


# saving and loading


def test_a_saved_config_says_what_it_needs_and_comes_back_equal(tmp_path: Path, site: Any, source: Source) -> None:
    site.plugin("gen-power", "strategies", "mcmc", source("strategies", "It", "mcmc_steps: int = 3"), version="1.2")
    with use(site.registry()):
        config = genmode.GenerationConfig(strategy="mcmc", mcmc_steps=9, temperature=0.5, do_sample=True)
        config.save_pretrained(tmp_path)
        assert saved(tmp_path)["genmode"] == {
            "contract": 1,
            "needs": {"mcmc": {"kind": "strategies", "distribution": "gen-power", "version": "1.2"}},
        }
        loaded = genmode.GenerationConfig.from_pretrained(tmp_path)
        assert type(loaded) is genmode.GenerationConfig
        assert loaded == config
        assert loaded.get_generation_mode() == "mcmc"
        loaded.save_pretrained(tmp_path)
        assert genmode.GenerationConfig.from_pretrained(tmp_path, mcmc_steps=4).mcmc_steps == 4
    with pytest.raises(
        UnknownComponentError,
        match=r"strategy 'mcmc' of gen-power 1\.2, which is not installed: pip install gen-power",
    ):
        genmode.GenerationConfig.from_pretrained(tmp_path)
    with use(site.registry(block=("mcmc",))), pytest.raises(DisabledError):
        genmode.GenerationConfig.from_pretrained(tmp_path)


def test_a_component_from_elsewhere_is_warned_of(tmp_path: Path, site: Any, source: Source) -> None:
    site.plugin("fork", "strategies", "mcmc", source("strategies", "It"))
    data = {
        "genmode": {
            "contract": 1,
            "needs": {"mcmc": {"kind": "strategies", "distribution": "old", "version": "1"}},
        }
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(data))
    with (
        use(site.registry()),
        pytest.warns(UserWarning, match=r"saved with strategy 'mcmc' of old 1; here fork 1\.0"),
    ):
        genmode.GenerationConfig.from_pretrained(tmp_path)


def test_what_a_program_registered_is_said_so(tmp_path: Path) -> None:
    genmode.GenerationConfig(xtc_probability=0.5).save_pretrained(tmp_path)
    with use(Registry([], Settings())), pytest.raises(UnknownComponentError, match=r"with genmode\.register"):
        genmode.GenerationConfig.from_pretrained(tmp_path)


def test_one_name_in_two_kinds_needs_both(host: Registry) -> None:
    host.register(Stopper, name="xtc")
    config = genmode.GenerationConfig(processors=["xtc"], criteria=["xtc"])
    assert [(info.kind, info.name) for info in config.needs()] == [("processors", "xtc"), ("criteria", "xtc")]
    text = json.dumps(
        {
            "genmode": {
                "contract": 1,
                "needs": {"criteria:xtc": {"kind": "criteria", "distribution": "registered", "version": ""}},
            }
        }
    )
    genmode.GenerationConfig.from_dict(json.loads(text))


@pytest.mark.parametrize(
    "header",
    [
        3,
        {},
        {"contract": 1},
        {"contract": "x", "needs": {}},
        {"contract": 1, "needs": {"a": 1}},
        {"contract": 1, "needs": {"a": {}}},
    ],
)
def test_a_malformed_header_is_named(header: Any) -> None:
    with pytest.raises(ParameterError, match="the key 'genmode' of a generation config is malformed"):
        genmode.GenerationConfig.from_dict({"genmode": header})


def test_a_file_of_a_newer_contract_is_refused() -> None:
    with pytest.raises(ContractVersionError, match="pip install --upgrade genmode"):
        genmode.GenerationConfig.from_dict({"genmode": {"contract": 2, "needs": {}}})


def test_a_config_of_flags_alone_is_saved_as_transformers_saves_it(tmp_path: Path) -> None:
    genmode.GenerationConfig(top_k=3, do_sample=True).save_pretrained(tmp_path / "a")
    transformers.GenerationConfig(top_k=3, do_sample=True).save_pretrained(tmp_path / "b")
    assert (tmp_path / "a/generation_config.json").read_text() == (tmp_path / "b/generation_config.json").read_text()


def test_unknown_keys_of_a_file_are_the_models_own_and_near_misses_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"alignment_heads": [[1, 2]], "max_length": 40}))
    config = genmode.GenerationConfig.from_pretrained(tmp_path)
    assert config.alignment_heads == [[1, 2]]
    config.save_pretrained(tmp_path)
    assert saved(tmp_path)["alignment_heads"] == [[1, 2]]
    (tmp_path / "generation_config.json").write_text(json.dumps({"xtc_probabilty": 0.5}))
    with pytest.warns(UserWarning, match="'xtc_probabilty', which nothing knows; did you mean 'xtc_probability'"):
        genmode.GenerationConfig.from_pretrained(tmp_path)
    with pytest.raises(ParameterError, match="xtc_treshold"):
        genmode.GenerationConfig.from_dict({}, xtc_treshold=1)


def test_wrong_values_of_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"xtc_probability": 5}))
    with pytest.raises(ParameterError, match="xtc_probability=5"):
        genmode.GenerationConfig.from_pretrained(tmp_path)


def test_a_wrong_config_is_not_saved(tmp_path: Path) -> None:
    config = genmode.GenerationConfig()
    config.xtc_probability = 5
    with pytest.raises(ParameterError, match="xtc_probability=5"):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_unused_arguments_are_returned_on_request(tmp_path: Path) -> None:
    genmode.GenerationConfig(top_k=2, do_sample=True).save_pretrained(tmp_path)
    config, unused = genmode.GenerationConfig.from_pretrained(
        tmp_path, xtc_probability=0.5, foo=1, return_unused_kwargs=True
    )
    assert (config.top_k, config.xtc_probability) == (2, 0.5)
    assert unused == {"foo": 1}


def test_secret_keys_are_neither_saved_nor_shown(tmp_path: Path) -> None:
    config = genmode.GenerationConfig(xtc_probability=0.5, xtc_key=987654)
    assert "987654" not in repr(config)
    assert "***" in repr(config)
    with pytest.warns(UserWarning, match="not saved, being secret: xtc_key"):
        config.save_pretrained(tmp_path)
    assert "xtc_key" not in saved(tmp_path)
    assert config.to_dict()["xtc_key"] == 987654


# from_model_config


def model_config(**extra: Any) -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaConfig(vocab_size=99, **sizes, **extra)


def test_keys_added_to_a_model_config_are_taken(host: Registry) -> None:
    config = genmode.GenerationConfig.from_model_config(model_config(xtc_probability=0.5, strategy="power", foo=1))
    assert (config.xtc_probability, config.strategy) == (0.5, "power")
    assert not hasattr(config, "foo")
    again = genmode.GenerationConfig.from_model_config(model_config(xtc_probability=0.5).to_dict())
    assert again.xtc_probability == 0.5
    assert again.bos_token_id == config.bos_token_id == 1
    with pytest.raises(ParameterError, match="xtc_probability=5"):
        genmode.GenerationConfig.from_model_config(model_config(xtc_probability=5))


def test_keys_that_the_model_config_declares_stay_the_models(host: Registry) -> None:
    @host.register
    class Greedy(genmode.LogitsProcessor):
        contract_version = 1

        class Params(genmode.Params):
            hidden_size: int = 0

        def process(self, scores: Any, history: Any) -> Any: ...

    for given in (model_config(), model_config().to_dict(), {"model_type": "not-a-model", "hidden_size": 3}):
        assert not hasattr(genmode.GenerationConfig.from_model_config(given), "hidden_size")


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
    assert named_components(theirs) == [("strategies", "power")]
    assert plugin_values(theirs) == {"xtc_probability": 0.5}
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


def test_transformers_keys() -> None:
    assert {"temperature", "top_k", "penalty_alpha", "dola_layers", "max_new_tokens"} <= transformers_keys()
    assert not any(key.startswith("_") for key in transformers_keys())


# watermarks


def test_a_watermark_is_checked_by_its_component_and_hides_its_key() -> None:
    mark = genmode.WatermarkingConfig("kgw", bias=1.5, key=987654)
    assert repr(mark) == "WatermarkingConfig('kgw', bias=1.5, key=***)"
    assert mark.to_dict() == {"scheme": "kgw", "bias": 1.5}
    assert mark.to_dict(secrets=True) == {"scheme": "kgw", "bias": 1.5, "key": 987654}
    assert genmode.WatermarkingConfig.from_dict(mark.to_dict(secrets=True)) == mark
    built = mark.build()
    assert isinstance(built, Kgw)
    assert built.params == Kgw.Params(bias=1.5, key=987654)
    for wrong, message in (
        (genmode.WatermarkingConfig("kgv"), "did you mean 'kgw'"),
        (genmode.WatermarkingConfig("kgw", bias=-1), "bias=-1 is not allowed"),
        (genmode.WatermarkingConfig("kgw", baas=1), "did you mean 'bias'"),
    ):
        with pytest.raises(genmode.GenmodeError, match=message):
            wrong.validate()


def test_a_watermark_without_its_key_is_valid_but_cannot_be_built() -> None:
    mark = genmode.WatermarkingConfig.from_dict({"scheme": "kgw", "bias": 1.5})
    mark.validate()
    with pytest.raises(ParameterError, match=r"watermarker 'kgw' .*key has to be given"):
        mark.build()
    with pytest.raises(ParameterError, match="names no scheme"):
        genmode.WatermarkingConfig.from_dict({"bias": 1})
    with pytest.raises(ParameterError, match="scheme=3"):
        genmode.WatermarkingConfig(3)  # type: ignore[arg-type]


def test_a_watermark_in_a_config_is_saved_without_its_key_and_loaded(tmp_path: Path) -> None:
    config = genmode.GenerationConfig(watermarking_config=genmode.WatermarkingConfig("kgw", key=987654))
    assert "987654" not in repr(config)
    assert copy.deepcopy(config) == config
    config.save_pretrained(tmp_path)
    assert "987654" not in (tmp_path / "generation_config.json").read_text()
    assert list(saved(tmp_path)["genmode"]["needs"]) == ["kgw"]
    loaded = genmode.GenerationConfig.from_pretrained(tmp_path)
    assert loaded.watermarking_config == genmode.WatermarkingConfig("kgw")
    assert loaded != config
    loaded.update(watermarking_config={"scheme": "kgw", "key": 987654})
    assert loaded == config
    with pytest.raises(ParameterError, match="bias=-1"):
        genmode.GenerationConfig(watermarking_config={"scheme": "kgw", "bias": -1})


def test_transformers_own_watermark_stays_theirs_and_their_generate_refuses_ours() -> None:
    theirs = genmode.GenerationConfig(watermarking_config={"bias": 2.5})
    assert isinstance(theirs.watermarking_config, transformers.WatermarkingConfig)
    assert theirs.needs() == []
    with pytest.raises(UnsupportedError, match=r"genmode\.generate\(model"):
        genmode.WatermarkingConfig("kgw").construct_processor(99, "cpu")


def test_nothing_warns_on_the_usual_paths(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genmode.GenerationConfig(xtc_probability=0.5).save_pretrained(tmp_path)
        genmode.GenerationConfig.from_pretrained(tmp_path)
