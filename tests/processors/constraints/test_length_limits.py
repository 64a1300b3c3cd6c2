"""How many tokens a row has."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    ExponentialDecayLengthPenalty,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
)

import genmode
from genmode_processors.constraints.length_limits import (
    ExponentialDecayLength,
    MinLength,
    MinNewTokens,
    RowMinNewTokens,
)

from ..rows_support import begun, cases, context, history, ragged, run, same

NOT = -math.inf


# numbers checkable by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "masked"), [(2, True), (3, True), (4, False)])
def test_the_end_is_masked_until_the_minimal_length(length: int, masked: bool) -> None:
    past = history([[1] * length], prompt=2)
    expected = [[0, NOT if masked else 0, NOT if masked else 0]]
    assert run(MinLength(min_length=4), torch.zeros(1, 3), past, eos_token_ids=[1, 2]).tolist() == expected
    assert run(MinNewTokens(min_new_tokens=2), torch.zeros(1, 3), past, eos_token_ids=[1, 2]).tolist() == expected


def test_rows_have_minima_of_their_own() -> None:
    processor = RowMinNewTokens(row_min_new_tokens=[0, 1, 2])
    past = history([[1, 1]] * 3, prompt=1)
    result = run(processor, torch.zeros(3, 2), past, eos_token_ids=[0])
    assert result[:, 0].tolist() == [0, 0, NOT]
    assert not result[:, 1].any()


def test_the_end_grows_more_likely() -> None:
    processor = ExponentialDecayLength(exponential_decay_length_penalty=(1, 2.0))
    scores = torch.tensor([[3.0, -3.0, 5.0]])
    for length, expected in ((2, [3, -3]), (3, [3, -3]), (4, [6, 0]), (5, [12, 6])):
        result = run(processor, scores, history([[0] * length], prompt=2), eos_token_ids=[0, 1])
        assert result.tolist() == [[*expected, 5.0]]  # score + |score| * (2 ** (new - 1) - 1)


# identity with transformers --------------------------------------------------------------------------

ENDS = st.sampled_from([0, [0], [1, 0], [0, 40]])


@given(cases(), st.integers(0, 13), st.integers(0, 13), ENDS)
def test_minima_equal_transformers(case: tuple, least: int, prompt: int, ends: int | list[int]) -> None:
    ids, scores = case
    tokens = torch.tensor(ids)
    theirs = MinLengthLogitsProcessor(least, ends)
    assert same(run(MinLength.adopt(theirs), scores, history(ids)), theirs(tokens, scores.clone()))
    newer = MinNewTokensLengthLogitsProcessor(prompt, least, ends)
    assert same(run(MinNewTokens.adopt(newer), scores, history(ids)), newer(tokens, scores.clone()))


@given(cases(), st.integers(0, 4), st.integers(0, 6), st.sampled_from([0.9, 1.0, 1.01, 3.0]), st.booleans())
def test_decay_equals_transformers(case: tuple, after: int, prompt: int, factor: float, several: bool) -> None:
    ids, scores = case
    ends = [0, 1] if several and scores.shape[1] > 1 else [0]
    theirs = ExponentialDecayLengthPenalty((after, factor), ends, prompt)
    expected = theirs(torch.tensor(ids), scores.clone())
    result = run(ExponentialDecayLength.adopt(theirs), scores, history(ids))
    sound = ~expected.isnan()  # the oldest supported release makes NaN of masked entries
    assert same(result[sound], expected[sound])
    assert not result.isnan().any()


# rows of their own lengths ---------------------------------------------------------------------------


@given(st.lists(st.integers(2, 8), min_size=1, max_size=4), st.integers(0, 6), st.sampled_from([0.9, 1.5]))
def test_each_row_is_as_if_alone(lengths: list[int], count: int, factor: float) -> None:
    rows = [[1] * length for length in lengths]
    scores = torch.linspace(-4, 4, 3 * len(rows)).view(len(rows), 3)
    for processor in (
        MinLength(min_length=count),
        MinNewTokens(min_new_tokens=count),
        RowMinNewTokens(row_min_new_tokens=[count]),
        ExponentialDecayLength(exponential_decay_length_penalty=(count, factor)),
    ):
        together = run(processor, scores, ragged(rows, prompt=2), eos_token_ids=[1])
        for row, tokens in enumerate(rows):
            alone = run(processor, scores[row : row + 1], history([tokens], prompt=2), eos_token_ids=[1])
            torch.testing.assert_close(together[row : row + 1], alone)


# life cycle and bad input ----------------------------------------------------------------------------


def test_minima_move_with_their_rows() -> None:
    past = history([[0], [0]], prompt=1)
    processor = begun(RowMinNewTokens(row_min_new_tokens=[0, 3]), past, eos_token_ids=[1])
    processor.reorder(torch.tensor([1, 0, 1]))
    result = processor.process(torch.zeros(3, 2), history([[0]] * 3, prompt=1))
    assert result[:, 1].tolist() == [NOT, 0, NOT]


def test_one_minimum_serves_all_beams_of_an_input() -> None:
    result = run(
        RowMinNewTokens(row_min_new_tokens=torch.tensor([0, 3])),
        torch.zeros(4, 2),
        history([[0]] * 4, prompt=1),
        eos_token_ids=[1],
    )
    assert result[:, 1].tolist() == [0, 0, NOT, NOT]


def test_minima_that_fit_no_row_are_refused() -> None:
    with pytest.raises(genmode.ParameterError, match="row_min_new_tokens: 2 given for 3 rows"):
        RowMinNewTokens(row_min_new_tokens=[1, 2]).begin(context(history([[0]] * 3)))
    with pytest.raises(ValueError, match="row_min_new_tokens"):
        RowMinNewTokens(row_min_new_tokens=[])


def test_a_row_of_ends_alone_is_masked_without_nan() -> None:
    result = run(MinLength(min_length=9), torch.zeros(1, 1), history([[0]]), eos_token_ids=[0])
    assert result.tolist() == [[NOT]]


@pytest.mark.parametrize("past", [history([[0] * 2000]), ragged([[0] * 2000])])
def test_decay_stays_finite(past: genmode.History) -> None:
    processor = ExponentialDecayLength(exponential_decay_length_penalty=(0, 10.0))
    result = run(processor, torch.tensor([[2.0, 1.0]]), past, eos_token_ids=[0])
    assert result.isfinite().all()
    assert result.argmax().item() == 0


def test_without_an_end_nothing_changes() -> None:
    for processor in (
        MinLength(min_length=9),
        ExponentialDecayLength(exponential_decay_length_penalty=(0, 2.0)),
    ):
        assert not run(processor, torch.zeros(1, 3), history([[0]])).any()
    assert not run(ExponentialDecayLength(), torch.zeros(1, 3), history([[0]]), eos_token_ids=[0]).any()
