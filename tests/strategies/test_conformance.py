"""Every built-in strategy, drafter and verification passes the conformance kit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import transformers

import genmode
from genmode.testing import Case, parametrize_with_checks
from genmode.testing.harness.host import plain_host
from genmode.testing.harness.models import near


@functools.cache
def dflash() -> Any:
    """A model that draws three tokens at a time from the hidden states of another."""
    config = transformers.MuseGlimmerAssistantConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=256, sliding_window=64, block_size=4, mask_token_id=99,
        target_layer_ids=[0, 1], pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.MuseGlimmerAssistantModel(config).eval()


def evens(texts: list[torch.Tensor]) -> list[float]:
    """The share of even ids in each text."""
    return [float((ids % 2 == 0).float().mean()) for ids in texts]


CALLS: Mapping[str, Mapping[str, Any]] = {
    "assisted_generation": {"call": lambda family: {"assistant_model": near(family), "num_assistant_tokens": 4}},
    "best_of_n": {"call": {"best_of_scorer": genmode.Scoring(evens, reads_ids=True)}},
    "constrained_beam_search": {"params": {"force_words_ids": [[7]]}},
    "dola_generation": {"params": {"dola_layers": "low"}, "call": {"repetition_penalty": 1.2}},
    "multi_token_prediction": {
        "call": lambda family: {"assistant_model": dflash(), "speculation_type": "dflash"},
        "skip": {"half_precision": "the draft model of the tests computes in float32 alone"},
    },
    "step_search": {"call": {"step_search_scorer": genmode.Scoring(evens, reads_ids=True)}},
}
"""What a strategy needs to run."""

DRAFTERS: Mapping[str, Mapping[str, Any]] = {
    "assistant": {"call": lambda family: {"assistant_model": near(family)}, "params": {"num_assistant_tokens": 3}},
    "early_exit": {}, "prompt_lookup": {}, "suffix": {},
}  # fmt: skip
"""Drafters that the models of the kit have all that they need for, and what else."""


def cases() -> list[Case]:
    host = plain_host()
    names = [info.name for info in host.components("strategies")]
    if not hasattr(transformers, "MuseGlimmerAssistantConfig"):  # of transformers from 5.20 on
        names.remove("multi_token_prediction")
    found = [Case(host.get("strategies", name), **CALLS.get(name, {})) for name in names]
    found += [Case(host.get("drafters", name), **call) for name, call in DRAFTERS.items()]
    return [*found, *(host.get("verifications", info.name) for info in host.components("verifications"))]


@parametrize_with_checks(cases())
def test_conformance(check: Any) -> None:
    check()
