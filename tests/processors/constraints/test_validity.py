"""Scores made safe to sample from."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from transformers import InfNanRemoveLogitsProcessor, LogitNormalization

from genmode_processors.constraints.validity import RemoveInvalidValues, Renormalise

from ..rows_support import cases, history, run, same

PAST = history([[0]])


def test_numbers_stand_for_what_is_none() -> None:
    scores = torch.tensor([[math.nan, math.inf, -math.inf, 2.0]])
    limits = torch.finfo(torch.float32)
    assert run(RemoveInvalidValues(), scores, PAST).tolist() == [[0.0, limits.max, -math.inf, 2.0]]
    assert same(run(RemoveInvalidValues(remove_invalid_values=False), scores, PAST), scores)


def test_probabilities_add_up_to_one() -> None:
    result = run(Renormalise(), torch.tensor([[0.0, math.log(3.0), -math.inf]]), PAST)
    assert result.exp().tolist() == [pytest.approx([0.25, 0.75, 0.0])]
    assert not run(Renormalise(renormalize_logits=False), torch.zeros(1, 3), PAST).any()


@given(cases())
def test_equals_transformers(case: tuple) -> None:
    ids, scores = case
    theirs = InfNanRemoveLogitsProcessor()
    odd = scores.clone()
    odd[:, ::3] = math.nan
    odd[:, 1::3] = math.inf
    tokens = torch.tensor(ids)
    expected = theirs(tokens, odd.clone()).masked_fill(odd.isneginf(), -math.inf)
    assert same(run(RemoveInvalidValues.adopt(theirs), odd, history(ids)), expected)
    final = LogitNormalization()
    assert same(run(Renormalise.adopt(final), scores, history(ids)), final(tokens, scores.clone()))


@pytest.mark.parametrize("vocab", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_masked_row_stays_masked_and_leaves_others_alone(vocab: int, dtype: torch.dtype) -> None:
    scores = torch.zeros(3, vocab, dtype=dtype)
    scores[1] = -math.inf
    result = run(Renormalise(), scores, history([[0]] * 3))
    assert result[1].tolist() == [-math.inf] * vocab
    assert same(result[[0, 2]], scores[[0, 2]].log_softmax(-1))


def test_nan_is_not_hidden() -> None:
    assert run(Renormalise(), torch.tensor([[math.nan, 1.0]]), PAST).isnan().all()
