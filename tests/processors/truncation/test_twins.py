"""Processors that stand in for transformers' classes give the same scores, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

import genmode
from genmode_processors.truncation.cutoffs import EpsilonCutoff, EtaCutoff
from genmode_processors.truncation.min_p import MinP
from genmode_processors.truncation.temperature import Temperature
from genmode_processors.truncation.top_h import TopH
from genmode_processors.truncation.top_k import TopK
from genmode_processors.truncation.top_p import TopP
from genmode_processors.truncation.typical import TypicalP

from .sampling_support import HISTORY, KINDS, make, many_scores

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
INNER = SHARES.filter(bool)
TEMPERATURES = st.sampled_from([0.1, 0.7, 1.0, 3.3])
KEEP = st.sampled_from([1, 1, 1, 2, 3])
TWINS: dict[str, tuple[type[genmode.LogitsProcessor], str, dict[str, st.SearchStrategy[Any]]]] = {
    "temperature": (Temperature, "TemperatureLogitsWarper", {"temperature": TEMPERATURES}),
    "top_k": (TopK, "TopKLogitsWarper", {"top_k": st.integers(1, 60), "min_tokens_to_keep": KEEP}),
    "top_p": (TopP, "TopPLogitsWarper", {"top_p": SHARES, "min_tokens_to_keep": KEEP}),
    "min_p": (MinP, "MinPLogitsWarper", {"min_p": SHARES, "min_tokens_to_keep": KEEP}),
    "typical_p": (TypicalP, "TypicalLogitsWarper", {"mass": INNER, "min_tokens_to_keep": KEEP}),
    "epsilon_cutoff": (EpsilonCutoff, "EpsilonLogitsWarper", {"epsilon": INNER, "min_tokens_to_keep": KEEP}),
    "eta_cutoff": (EtaCutoff, "EtaLogitsWarper", {"epsilon": INNER, "min_tokens_to_keep": KEEP}),
    "top_h": (TopH, "TopHLogitsWarper", {"top_h": INNER}),
}
LARGE: dict[str, list[dict[str, Any]]] = {
    "temperature": [{"temperature": 0.7}],
    "top_k": [{"top_k": 50}, {"top_k": 700}],
    "top_p": [{"top_p": 0.9}, {"top_p": 0.3, "min_tokens_to_keep": 2}],
    "min_p": [{"min_p": 0.05}],
    "typical_p": [{"mass": 0.9}, {"mass": 0.2}],
    "epsilon_cutoff": [{"epsilon": 3e-4}],
    "eta_cutoff": [{"epsilon": 3e-4}],
    "top_h": [{"top_h": 0.4}],
}
names = pytest.mark.parametrize("name", TWINS)


def pairs(name: str) -> st.SearchStrategy[tuple[genmode.LogitsProcessor, Any]]:
    """Ours, adopted, and transformers' own."""
    _, twin, values = TWINS[name]
    return st.builds(getattr(theirs, twin), **values).map(lambda made: (ours(name, made), made))


def ours(name: str, made: Any) -> genmode.LogitsProcessor:
    adopted = TWINS[name][0].adopt(made)
    assert adopted is not None
    return adopted


@pytest.mark.oldest
@names
def test_equals_transformers(name: str) -> None:
    @settings(max_examples=250)
    @given(pairs(name), many_scores())
    def check(pair: tuple[genmode.LogitsProcessor, Any], scores: Tensor) -> None:
        assert torch.equal(pair[0].process(scores.clone(), HISTORY), pair[1](None, scores))

    check()


@pytest.mark.oldest
@pytest.mark.parametrize("kind", KINDS)
@names
def test_equals_transformers_at_the_size_of_a_vocabulary(name: str, kind: str) -> None:
    scores = make(kind, 3, 5003, 1)
    for values in LARGE[name]:
        twin = getattr(theirs, TWINS[name][1])(**values)
        assert torch.equal(ours(name, twin).process(scores.clone(), HISTORY), twin(None, scores))


@names
def test_equals_transformers_on_bfloat16(name: str) -> None:
    @settings(max_examples=40)
    @given(pairs(name), many_scores())
    def check(pair: tuple[genmode.LogitsProcessor, Any], scores: Tensor) -> None:
        scores = scores.clamp(min=-1e38).bfloat16()
        result = pair[0].process(scores.clone(), HISTORY)
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, pair[1](None, scores))

    check()


@names
def test_a_finite_filter_value_stays_transformers_own(name: str) -> None:
    cls, twin, _ = TWINS[name]
    if name != "temperature":
        assert cls.adopt(getattr(theirs, twin)(**LARGE[name][0], filter_value=-9.0)) is None


@names
def test_names_the_class_that_it_replaces(name: str) -> None:
    assert TWINS[name][0].replaces == (TWINS[name][1],)
    assert TWINS[name][0].name == name
