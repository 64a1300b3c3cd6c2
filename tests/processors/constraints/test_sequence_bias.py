"""Biases on sequences of tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import SequenceBiasLogitsProcessor

import genmode
from genmode_processors.constraints.bans import BadWords
from genmode_processors.constraints.sequence_bias import SequenceBias

from ..rows_support import cases, history, ragged, run, same, scores_of

BIASES = [[[1], -1.0], [[0, 1], 5.0], [[2, 0, 1], 0.5], [[3, 3], -math.inf]]


# numbers checkable by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([5], [0, -1, 0, 0]),
        ([0], [0, 4, 0, 0]),  # 0 1 would be complete
        ([2, 0], [0, 4.5, 0, 0]),  # and 2 0 1 too
        ([3], [0, -1, 0, -math.inf]),
    ],
)
def test_the_last_token_of_a_sequence_is_biased(tokens: list[int], expected: list[float]) -> None:
    result = run(SequenceBias(sequence_bias=BIASES), torch.zeros(1, 4), history([tokens]))
    assert result.tolist() == [expected]


def test_both_spellings_of_transformers_are_read() -> None:
    written = SequenceBias(sequence_bias={(0, 1): 5.0}).params
    assert written == SequenceBias(sequence_bias=[[[0, 1], 5.0]]).params


@pytest.mark.parametrize("make", [history, ragged])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_padding_is_no_text(make: Any, start: int) -> None:
    tokens = [2, 0, 0]
    bias = SequenceBias(sequence_bias=[[[2, 0, 0, 1], 0.5], [[0, 0, 1], 0.25], [[0, 1], 0.125]])
    bad = BadWords(bad_words_ids=[[2, 0, 0, 3], [0, 0, 2]])
    padded, alone = make([tokens], 3, [start]), history([tokens[start:]], 3 - start)
    for processor in (bias, bad):
        assert same(run(processor, torch.zeros(1, 4), padded), run(processor, torch.zeros(1, 4), alone))
    assert run(bias, torch.zeros(1, 4), padded)[0, 1].item() == [0.875, 0.375, 0.125][start]


# identity with transformers --------------------------------------------------------------------------

ENTRY = st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.sampled_from([-math.inf, -2.5, 0.1, 3.0]))


@given(cases(min_vocab=4), st.lists(ENTRY, min_size=1, max_size=6, unique_by=lambda pair: tuple(pair[0])))
def test_equals_transformers(case: tuple, biases: list[tuple[list[int], float]]) -> None:
    ids, scores = case
    theirs = SequenceBiasLogitsProcessor({tuple(tokens): bias for tokens, bias in biases})
    result = run(SequenceBias.adopt(theirs), scores, history(ids))
    expected = theirs(torch.tensor(ids), scores.clone())
    if hasattr(theirs, "multi_token_biases"):
        assert same(result, expected)
    else:  # the oldest supported release adds in another order
        torch.testing.assert_close(result, expected)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_each_row_is_as_if_alone(ids: list[list[int]], data: st.DataObject) -> None:
    scores = data.draw(scores_of(len(ids), 4))
    processor = SequenceBias(sequence_bias=BIASES)
    together = run(processor, scores, ragged(ids))
    for row, tokens in enumerate(ids):
        assert same(together[row : row + 1], run(processor, scores[row : row + 1], history([tokens])))


# bad input -------------------------------------------------------------------------------------------


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(genmode.ParameterError, match=r"sequence_bias: tokens \[9\] are outside"):
        run(SequenceBias(sequence_bias=[[[9, 1], 1.0]]), torch.zeros(1, 4), history([[0]]))


@pytest.mark.parametrize("value", [[[[], 1.0]], [[[-1], 1.0]], [[[1], math.inf]], [[[1], math.nan]], [[1, 1.0, 2]]])
def test_what_is_no_bias_is_refused(value: list) -> None:
    with pytest.raises(ValueError, match="sequence_bias"):
        SequenceBias(sequence_bias=value)


def test_without_biases_nothing_changes() -> None:
    assert not run(SequenceBias(), torch.zeros(2, 3), history([[0], [1]])).any()
