"""transformers' flag `watermarking_config`, wherever it is set: as an object, as a dictionary, or as what is neither."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import genmode
from genmode.errors import ParameterError
from genmode.testing.harness.models import fresh, tiny

PROMPT = torch.tensor([[5, 6, 7]])
CALL: dict[str, Any] = {"do_sample": True, "seed": 1, "max_new_tokens": 6}
MARK = genmode.WatermarkingConfig("gumbel", key=12345)
TOLD = "topsecret"


def marked(mark: Any = MARK) -> torch.Tensor:
    found: torch.Tensor = genmode.generate(tiny("llama"), PROMPT, **CALL, watermark=mark)
    return found


class TestInTheModelsOwnConfig:
    @pytest.mark.parametrize("kind", [genmode.GenerationConfig, transformers.GenerationConfig])
    def test_an_object_marks(self, kind: Any) -> None:
        model = fresh("llama")
        model.generation_config = kind()
        model.generation_config.watermarking_config = MARK
        assert torch.equal(genmode.generate(model, PROMPT, **CALL), marked())
        assert "gumbel" in str(genmode.explain(model, PROMPT, **CALL))
        assert torch.equal(genmode.attach(model).generate(PROMPT, **CALL), marked())
        assert model.generation_config.watermarking_config is MARK

    @pytest.mark.parametrize("kind", [genmode.GenerationConfig, transformers.GenerationConfig])
    def test_an_object_marks_beside_a_config_of_the_call(self, kind: Any) -> None:
        model = fresh("llama")
        model.generation_config.watermarking_config = MARK
        config = kind(do_sample=True, max_new_tokens=6)
        assert torch.equal(genmode.generate(model, PROMPT, generation_config=config, seed=1), marked())

    def test_what_the_call_says_wins(self) -> None:
        model, theirs = fresh("llama"), transformers.WatermarkingConfig(bias=3.0)
        other = genmode.WatermarkingConfig("gumbel", key=777)
        assert not torch.equal(marked(other), marked())
        for own in (MARK, theirs):
            model.generation_config.watermarking_config = own
            for given in (
                {"watermarking_config": other},
                {"generation_config": genmode.GenerationConfig(watermarking_config=other)},
            ):
                assert torch.equal(genmode.generate(model, PROMPT, **CALL, **given), marked(other))
        model.generation_config.watermarking_config = MARK
        wanted = genmode.generate(tiny("llama"), PROMPT, **CALL, watermarking_config=theirs)
        assert torch.equal(genmode.generate(model, PROMPT, **CALL, watermarking_config=theirs), wanted)

    def test_a_dictionary_that_transformers_cannot_read_there_is_refused(self) -> None:
        model = fresh("llama")
        model.generation_config.watermarking_config = {"scheme": "gumbel", "key": 12345}
        with pytest.raises(ParameterError, match=r"WatermarkingConfig\.from_dict") as caught:
            genmode.generate(model, PROMPT, **CALL)
        assert "12345" not in str(caught.value)


WRONG: list[tuple[Any, str]] = [
    (5, "watermarking_config of type int"),
    (True, "watermarking_config of type bool"),
    ("kgw", "watermarking_config of type str"),
    ([1], "watermarking_config of type list"),
    ({"key": 5}, "has 'key': without 'scheme' it is transformers', with greenlist_ratio"),
    ({"bais": 5}, r"'bais'; did you mean 'bias'\?"),
    ({1: TOLD}, "watermarking_config has 1"),
    ({"keys": TOLD, "ngram_len": 3}, "watermarking_config has 'keys', 'ngram_len'"),
    ({"scheme": None}, "a scheme of type NoneType"),
    ({"bias": "x"}, "bias='x' is not allowed"),
    ({"greenlist_ratio": 7.0, "hashing_key": TOLD}, r"'greenlist_ratio': 7\.0, 'bias': 2\.0, 'hashing_key': '\*\*\*'"),
    ({"context_width": "x"}, "'context_width': 'x'"),
    ({"context_width": 2.5}, r"context_width=2\.5 is not allowed"),
    ({"hashing_key": TOLD}, "a hashing_key of type str"),
    ({"hashing_key": 10**30}, "a hashing_key of type int"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_what_is_no_watermark_is_refused_with_its_key(given: Any, message: str) -> None:
    for flags in (
        {"watermarking_config": given},
        {"watermarking_config": given, "generation_config": genmode.GenerationConfig()},
    ):
        with pytest.raises(ParameterError, match=message) as caught:
            genmode.generate(tiny("llama"), PROMPT, **CALL, **flags)
        assert TOLD not in str(caught.value)
        assert "cannot prepare" not in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"bias": 2.5}], ids=str)
def test_a_dictionary_without_a_scheme_is_transformers(given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    found = genmode.generate(tiny("llama"), PROMPT, do_sample=True, max_new_tokens=6, watermarking_config=given)
    torch.manual_seed(0)
    assert torch.equal(
        tiny("llama").generate(PROMPT, do_sample=True, max_new_tokens=6, watermarking_config=given), found
    )
    config = genmode.GenerationConfig(do_sample=True, max_new_tokens=6)
    torch.manual_seed(0)
    beside = genmode.generate(tiny("llama"), PROMPT, generation_config=config, watermarking_config=given)
    assert torch.equal(beside, found)
