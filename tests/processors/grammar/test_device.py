"""Grammars in whole calls on a device: every engine, under every way of decoding, gives the CPU's tokens."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode_processors.grammar import Grammar

from .support import CASES, GRAMMARS, model, needs, prompts, texts, tokenizer

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0, "seed": [1, 2, 3, 4]},
    "4 beams": {"num_beams": 4},
    "prompt lookup": {"prompt_lookup_num_tokens": 6, "do_sample": True, "seed": [1, 2, 3, 4]},
}


@functools.cache
def on(device: str) -> Any:
    return copy.deepcopy(model()).to(device)


def decoded(kind: str, engine: str, way: str, device: str) -> Tensor:
    grammar = Grammar(grammar=GRAMMARS[kind][0], grammar_engine=engine)
    inputs = {key: value.to(device) for key, value in prompts(4).items()}
    ids: Tensor = genmode.generate(
        on(device), **inputs, processors=[grammar], tokenizer=tokenizer(), max_new_tokens=160, **WAYS[way]
    )
    assert grammar.results == ("complete",) * 4
    return ids.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("engine", "kind"), CASES)
def test_texts_hold_and_are_those_of_the_cpu(engine: str, kind: str, way: str) -> None:
    needs(engine)
    found = decoded(kind, engine, way, "cuda")
    assert all(GRAMMARS[kind][1](text) for text in texts(found, 4))
    assert torch.equal(found, decoded(kind, engine, way, "cpu"))
