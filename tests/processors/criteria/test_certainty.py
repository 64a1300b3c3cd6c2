"""Criteria that look at scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import genmode
from genmode_processors.criteria import Confidence, Entropy

from ..rows_support import history, ragged


def test_an_improbable_token_stops() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)], [-math.inf, 0.0]])
    past = history([[0], [1], [0]])
    assert Confidence(stop_confidence=0.5).check(past, scores).tolist() == [True, False, True]
    assert Confidence(stop_confidence=0.2).check(past, scores).tolist() == [False, False, True]
    assert Confidence().check(past, scores).tolist() == [False] * 3


def test_an_uncertain_token_stops() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0], [9.0, -math.inf, -math.inf, -math.inf]])
    past = history([[0], [0]])
    limit = math.log(4)
    assert Entropy(stop_entropy=limit * 0.99).check(past, scores).tolist() == [True, False]
    assert Entropy(stop_entropy=limit * 1.01).check(past, scores).tolist() == [False, False]
    assert Entropy().check(past, scores).tolist() == [False, False]


@pytest.mark.parametrize("criterion", [Confidence(stop_confidence=0.5), Entropy(stop_entropy=0.5)])
def test_scores_are_needed_and_a_masked_row_does_not_stop(criterion: Any) -> None:
    past = ragged([[0, 1], [99]])
    masked = torch.full((2, 3), -math.inf)
    assert genmode.Trait.READS_SCORES in criterion.traits
    assert criterion.check(past, masked).tolist() == [False, False]
    with pytest.raises(genmode.ParameterError, match="needs the scores"):
        criterion.check(past)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_any_type_are_judged_in_float32(dtype: torch.dtype) -> None:
    scores = torch.zeros(1, 3, dtype=dtype)
    assert Confidence(stop_confidence=0.34).check(history([[0]]), scores).tolist() == [True]
    assert Confidence(stop_confidence=0.33).check(history([[0]]), scores).tolist() == [False]
