"""The generation config, saved and loaded, and what it takes from a model's config."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import genmode
from genmode.errors import ContractVersionError, DisabledError, ParameterError, UnknownComponentError
from genmode.plugins.registry import Registry, use
from genmode.plugins.settings import Settings

from .config_support import Stopper, model_config, saved

pytestmark = pytest.mark.usefixtures("parts")

Source = Callable[..., str]


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
    for shown in (config.to_dict(), config.to_json_string(), vars(config), config.to_json_string(use_diff=False)):
        assert "987654" not in str(shown)
    assert "xtc_key" not in config.to_json_string()
    assert config != genmode.GenerationConfig(xtc_probability=0.5, xtc_key=1)
    assert config == genmode.GenerationConfig.from_dict(config.to_dict()) == copy.deepcopy(config)


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
