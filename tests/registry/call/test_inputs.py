"""Flags of transformers are finite numbers within the bounds of the component that serves them, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import genmode
from genmode.call.inputs import SWITCHES
from genmode.plugins.parameters import flag_defaults
from genmode.testing.harness.models import fresh, prompt, tiny, tokenizer

ONE = prompt("llama", 1)
FLOATS = sorted(
    {key for key, value in flag_defaults().items() if isinstance(value, float)}
    | {
        "min_p",
        "top_h",
        "guidance_scale",
        "penalty_alpha",
        "max_time",
        "diversity_penalty",
        "encoder_repetition_penalty",
    }
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", FLOATS)
def test_numbers_are_finite(key: str, value: float) -> None:
    for given in ({key: value}, {"generation_config": genmode.GenerationConfig(**{key: value})}):
        with pytest.raises(genmode.ParameterError, match=f"{key}={value}"):
            genmode.generate(tiny("llama"), **ONE, max_new_tokens=2, do_sample=True, **given)


@pytest.mark.parametrize("none", [[], (), torch.zeros(0, dtype=torch.long)], ids=["list", "tuple", "tensor"])
@pytest.mark.parametrize("key", ["suppress_tokens", "begin_suppress_tokens", "eos_token_id"])
def test_lists_of_no_token_change_nothing(key: str, none: Any) -> None:
    expected = genmode.generate(tiny("llama"), **ONE, max_new_tokens=3)
    assert torch.equal(genmode.generate(tiny("llama"), **ONE, max_new_tokens=3, **{key: none}), expected)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"bad_words_ids": [[]]}, "bad_words_ids"), ({"bad_words_ids": [[5], []]}, "bad_words_ids"),
        ({"bad_words_ids": []}, "bad_words_ids"), ({"sequence_bias": []}, "sequence_bias"),
        ({"sequence_bias": [[[], 1.0]]}, "sequence_bias"), ({"sequence_bias": [[[5], math.nan]]}, "sequence_bias"),
        ({"temperature": -1.0, "do_sample": True}, "temperature"), ({"top_p": 1.5, "do_sample": True}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"), ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"exponential_decay_length_penalty": (2, math.inf)}, "exponential_decay_length_penalty"),
        ({"max_new_tokens": 2**70}, "max_new_tokens"), ({"eos_token_id": 2**70}, "eos_token_id"),
        ({"forced_bos_token_id": 2**64}, "forced_bos_token_id"), ({"row_max_new_tokens": [2**64]}, "row_max_new_tokens"),
        ({"stop_strings": -1, "tokenizer": tokenizer()}, "stop_strings"),
        ({"stop_strings": [""], "tokenizer": tokenizer()}, "stop_strings"), ({"min_length": 2**31}, "min_length"),
        ({"penalty_alpha": [1]}, "penalty_alpha"), ({"diversity_penalty": torch.zeros(0)}, "diversity_penalty"),
        ({"top_k": "x"}, "top_k"), ({"num_beam_groups": {}}, "num_beam_groups"), ({"forced_bos_token_id": True}, "forced_bos_token_id"),
        ({"prefill_chunk_size": True}, "prefill_chunk_size"), ({"prefill_chunk_size": 0}, "prefill_chunk_size"), ({"mirostat_tau": 1e300}, "mirostat_tau"),
        ({"temperature": 1e300, "do_sample": True}, "temperature"),
        ({"forced_eos_token_id": torch.zeros(0, dtype=torch.long)}, "forced_eos_token_id"),
        ({"forced_eos_token_id": []}, "eos_token_id"), ({"forced_bos_token_id": torch.zeros(0)}, "forced_bos_token_id"),
        ({"length_penalty": -30.0, "num_beams": 2, "max_new_tokens": 20}, "length_penalty"),
    ],
    ids=str,
)  # fmt: skip
def test_values_are_refused_by_name(flags: dict[str, Any], named: str) -> None:
    with pytest.raises(genmode.ParameterError, match=named):
        genmode.generate(tiny("llama"), **ONE, **{"max_new_tokens": 2, **flags})


@pytest.mark.parametrize(
    "flags",
    [{"temperature": 0.0}, {"top_p": 3.0}, {"top_k": -1}, {"typical_p": 0.0}, {"min_p": None}, {"temperature": 1}],
)
def test_what_transformers_leaves_out_is_not_looked_at(flags: dict[str, Any]) -> None:
    """Without sampling nothing is built of these, and callers set them so."""
    plain = genmode.generate(tiny("llama"), **ONE, max_new_tokens=3, do_sample=False)
    assert torch.equal(genmode.generate(tiny("llama"), **ONE, max_new_tokens=3, do_sample=False, **flags), plain)


def test_a_failure_of_transformers_preparation_is_of_the_family() -> None:
    with pytest.raises(genmode.ParameterError, match="transformers cannot prepare this call: ValueError") as caught:
        genmode.generate(tiny("llama"), **ONE, max_new_tokens=3, cache_implementation="no such cache")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_a_cache_that_needs_an_accelerator() -> None:
    with pytest.raises(genmode.UnsupportedError, match="no accelerator"):
        genmode.generate(tiny("llama"), **ONE, max_new_tokens=3, cache_implementation="offloaded")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("more", [{}, {"seed": 1}, {"top_k": 0, "top_p": 0.9}, {"top_k": 5, "seed": 3}], ids=str)
class TestLimitsOfTheTemperature:
    @pytest.mark.parametrize("temperature", [1e-20, 1e-26, 1e-38, 1e-40, 1e-45, 1e-300])
    def test_towards_0_it_is_greedy(self, temperature: float, more: dict[str, Any], dtype: torch.dtype) -> None:
        model, inputs = fresh("llama").to(dtype), prompt("llama", 3)
        try:
            greedy = genmode.generate(model, **inputs, max_new_tokens=5, do_sample=False)
            found = genmode.generate(
                model, **inputs, max_new_tokens=5, do_sample=True, temperature=temperature, **more
            )  # fmt: skip
        finally:
            model.float()
        assert torch.equal(found, greedy)

    @pytest.mark.parametrize("temperature", [1e30, 3e38])
    def test_towards_infinity_it_is_uniform(self, temperature: float, more: dict[str, Any], dtype: torch.dtype) -> None:
        model, allowed = fresh("llama").to(dtype), {3, 4, 5}
        torch.manual_seed(0)
        try:
            found = genmode.generate(
                model, torch.full((64, 2), 9), max_new_tokens=1, do_sample=True, temperature=temperature,
                **{**more, "seed": None}, suppress_tokens=[t for t in range(100) if t not in allowed],
            )[:, 2].tolist()  # fmt: skip
        finally:
            model.float()
        assert set(found) == allowed


@pytest.mark.parametrize("key", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, (), "yes", 0.5])
def test_switches_are_true_or_false(key: str, value: Any) -> None:
    with pytest.raises(genmode.ParameterError, match=f"{key}=.*give True or False"):
        genmode.generate(tiny("llama"), **ONE, max_new_tokens=2, **{key: value})


def test_an_n_gram_that_no_input_has_takes_no_time() -> None:
    with pytest.raises(genmode.ParameterError, match="encoder_no_repeat_ngram_size=2147483648 is not allowed"):
        genmode.generate(tiny("llama"), **ONE, max_new_tokens=2, encoder_no_repeat_ngram_size=2**31)


@pytest.mark.parametrize("strategy", ["beam_search", "beam_sample", "group_beam_search", "constrained_beam_search"])
def test_a_length_penalty_whose_powers_are_numbers(strategy: str) -> None:
    more: dict[str, Any] = {"force_words_ids": [[7]]} if strategy == "constrained_beam_search" else {}
    call = {**ONE, **more, "strategy": strategy, "max_new_tokens": 4}
    for penalty in (1e300, -1e300, 33.0):
        with pytest.raises(genmode.ParameterError, match=r"length_penalty=.* is not allowed"):
            genmode.generate(tiny("llama"), **call, length_penalty=penalty)
    for penalty in (-8.0, 32.0):
        assert genmode.generate(tiny("llama"), **call, length_penalty=penalty, seed=1).shape[1] == 13


@pytest.mark.parametrize(
    "given",
    [True, "a name", torch.zeros(0, dtype=torch.long), object()],
    ids=["a switch", "a name", "a tensor", "an object"],
)
@pytest.mark.parametrize("strategy", [None, "assisted_generation", "sample"])
def test_an_assistant_that_is_no_model(strategy: str | None, given: Any) -> None:
    with pytest.raises(genmode.ParameterError, match=f"assistant_model is a {type(given).__name__}; load it"):
        genmode.generate(tiny("llama"), **ONE, max_new_tokens=2, strategy=strategy, assistant_model=given)


@pytest.mark.parametrize("value", [0.5, "5", {}, torch.zeros(0, dtype=torch.long)], ids=repr)
def test_a_chunk_of_the_prompt_is_a_whole_number(value: Any) -> None:
    with pytest.raises(genmode.ParameterError, match=r"prefill_chunk_size=.* is no whole number"):
        genmode.generate(tiny("llama"), **ONE, max_new_tokens=2, prefill_chunk_size=value)
