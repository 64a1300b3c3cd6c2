"""Caches that a call brings, and models that say on the instance how they read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

import genmode
from genmode.testing.harness.models import fresh, ids, tiny

MANY: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "several": {"do_sample": True, "num_return_sequences": 3},
    "beam sample": {"do_sample": True, "num_beams": 2},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "do_sample": False},
}


def read(model: Any, tokens: Tensor) -> DynamicCache:
    """A cache that has read `tokens` `[rows, length]`."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(tokens, past_key_values=cache, use_cache=True)
    return cache


@pytest.mark.parametrize("way", MANY)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_given_cache_serves_all_rows_of_its_input(way: str, rows: int) -> None:
    model, tokens = tiny("llama"), ids(rows, 8)
    flags: dict[str, Any] = {"max_new_tokens": 6, "attention_mask": torch.ones_like(tokens), **MANY[way]}
    seed = {"seed": list(range(rows))} if flags.get("do_sample") else {}
    cache = read(model, tokens[:, :6])
    before = copy.deepcopy(cache)
    expected = genmode.generate(model, tokens, **flags, **seed)
    assert torch.equal(genmode.generate(model, tokens, **flags, **seed, past_key_values=cache), expected)
    assert torch.equal(cache.layers[0].keys, before.layers[0].keys)  # it was repeated, and is as it was


def test_a_cache_of_other_rows_is_refused_before_the_model_runs() -> None:
    model, tokens = tiny("llama"), ids(3, 8)
    with pytest.raises(genmode.UnsupportedError, match=r"past_key_values=DynamicCache holds 2 rows, and 3 are decoded"):
        genmode.generate(model, tokens, max_new_tokens=4, past_key_values=read(model, tokens[:2, :6]))


@pytest.mark.parametrize("flags", [{}, {"prompt_lookup_num_tokens": 3}, {"do_sample": True, "top_k": 1, "seed": 1}])
def test_a_method_set_on_the_instance_acts(flags: dict[str, Any]) -> None:
    model, tokens = fresh("llama"), ids(1, 6)
    plain, vocabulary = model.prepare_inputs_for_generation, model.config.vocab_size

    def shifted(input_ids: Tensor, **more: Any) -> Any:
        inputs = plain(input_ids, **more)
        inputs["input_ids"] = (inputs["input_ids"] * 7 + 1) % vocabulary
        return inputs

    model.prepare_inputs_for_generation = shifted
    text = tokens
    for _ in range(7):
        with torch.no_grad():
            logits = model(input_ids=(text * 7 + 1) % vocabulary, use_cache=False).logits[:, -1]
        text = torch.cat([text, logits.argmax(-1, keepdim=True)], dim=1)
    got = genmode.generate(model, tokens, **{"max_new_tokens": 7, "do_sample": False, "eos_token_id": None, **flags})
    assert torch.equal(got, text)
