"""The watermarking config within a generation config."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import transformers

import genmode
from genmode.errors import ParameterError, UnsupportedError

from .config_support import Kgw, saved

pytestmark = pytest.mark.usefixtures("parts")


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
    with pytest.raises(ParameterError, match="a scheme of type int"):
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
