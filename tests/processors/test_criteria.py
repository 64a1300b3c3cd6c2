"""Criteria that look at lengths, times, ids and scores."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EosTokenCriteria, MaxLengthCriteria
from transformers.generation.stopping_criteria import MaxTimeCriteria

import genmode
from genmode_processors.criteria import (
    Callable,
    Confidence,
    Entropy,
    Eos,
    MaxLength,
    MaxTime,
    NgramLoop,
    RowLimits,
)

from .rows_support import begun, history, ragged, session

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=10), min_size=1, max_size=4)


def check(criterion: Any, past: genmode.History, **more: Any) -> list[bool]:
    done = begun(criterion, past, **more).check(past)
    assert done.dtype == torch.bool
    assert done.shape == past.lengths.shape
    return done.tolist()


# length, time, end of sequence -----------------------------------------------------------------------


@pytest.mark.parametrize(("length", "done"), [(2, False), (3, True), (4, True)])
def test_a_length_is_enough(length: int, done: bool) -> None:
    assert check(MaxLength(max_length=3), history([[0] * length] * 2)) == [done] * 2
    assert check(MaxLength(max_length=3), ragged([[0] * length, [0] * 9])) == [done, True]
    theirs = MaxLengthCriteria(3)
    assert MaxLength.adopt(theirs).check(history([[0] * length])).tolist() == [done]
    assert check(MaxLength(), history([[0] * length])) == [False]


def test_time_is_up_only_after_the_limit() -> None:
    now = [100.0]
    criterion = begun(MaxTime(max_time=2.0, clock=lambda: now[0]), history([[0], [0]]))
    for later, done in ((0.0, False), (2.0, False), (2.5, True)):
        now[0] = 100.0 + later
        assert criterion.check(history([[0], [0]])).tolist() == [done, done]
    criterion.reset()
    with pytest.raises(RuntimeError, match="before begin"):
        criterion.check(history([[0]]))
    begun(criterion, history([[0]]))
    assert criterion.check(history([[0]])).tolist() == [False]
    assert MaxTime.adopt(MaxTimeCriteria(3.0)).params.max_time == 3.0
    with pytest.raises(ValueError, match="max_time"):
        MaxTime(max_time=-1)


def test_the_end_is_the_last_token_only() -> None:
    rows = [[2, 1], [1, 2], [3, 3]]
    assert check(Eos(eos_token_id=[2, 99]), history(rows)) == [False, True, False]
    assert check(Eos(), history(rows), eos_token_ids=[3, 1]) == [True, False, True]
    assert check(Eos(), history(rows)) == [False] * 3
    assert check(Eos(eos_token_id=2), ragged([[2], [2, 0], [0, 0, 2]])) == [True, False, True]


@given(ROWS, st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_the_end_equals_transformers(rows: list[list[int]], ends: list[int]) -> None:
    theirs = EosTokenCriteria(ends)
    expected = [bool(theirs(torch.tensor([row]), None)) for row in rows]
    assert check(Eos.adopt(theirs), ragged(rows)) == expected


# limits of each row ----------------------------------------------------------------------------------


def test_each_row_has_its_limit() -> None:
    past = history([[0, 0, 0]] * 4, prompt=1)
    assert check(RowLimits(row_max_new_tokens=[1, 2, 3, 0]), past) == [True, True, False, True]
    assert check(RowLimits(row_max_new_tokens=torch.tensor([2, 3])), past) == [True, True, False, False]
    assert check(RowLimits(), past) == [False] * 4


def test_limits_move_with_their_rows() -> None:
    past = history([[0, 0]] * 2, prompt=1)
    criterion = begun(RowLimits(row_max_new_tokens=[1, 2]), past)
    fork = copy.copy(criterion)
    fork.reorder(torch.tensor([1, 0, 0]))
    assert fork.check(history([[0, 0]] * 3, prompt=1)).tolist() == [False, True, True]
    assert criterion.check(past).tolist() == [True, False]


def test_limits_that_fit_no_row_are_refused() -> None:
    with pytest.raises(genmode.ParameterError, match="row_max_new_tokens: 2 given for 3 rows"):
        RowLimits(row_max_new_tokens=[1, 2]).begin(session(history([[0]] * 3)))
    for value in ([], [-1]):
        with pytest.raises(ValueError, match="row_max_new_tokens"):
            RowLimits(row_max_new_tokens=value)


# loops -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "done"),
    [
        ([5, 1, 1, 1], True),
        ([5, 1, 1], False),
        ([5, 1, 2, 1, 2, 1, 2], True),
        ([5, 1, 2, 1, 2, 1], False),
        ([5, 1, 2, 1, 2, 1, 2, 3], False),
        ([5, 1, 2, 3, 1, 2, 3, 1, 2, 3], False),  # longer than the longest n-gram looked for
        ([1, 1, 1], False),  # one of them is the prompt
    ],
)
def test_an_ngram_three_times_over_is_a_loop(tokens: list[int], done: bool) -> None:
    criterion = NgramLoop(ngram_loop_size=2, ngram_loop_repeats=3)
    assert check(criterion, history([tokens], prompt=1)) == [done]


@given(ROWS, st.integers(1, 4), st.integers(2, 4))
def test_loops_equal_the_definition(rows: list[list[int]], size: int, repeats: int) -> None:
    expected = [
        any(
            len(row) - 1 >= period * repeats and row[-period * repeats :] == row[-period:] * repeats
            for period in range(1, size + 1)
        )
        for row in rows
    ]
    criterion = NgramLoop(ngram_loop_size=size, ngram_loop_repeats=repeats)
    assert check(criterion, ragged(rows, prompt=1)) == expected
    assert [check(criterion, history([row], prompt=1))[0] for row in rows] == expected


# scores ----------------------------------------------------------------------------------------------


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
    assert criterion.needs_scores
    assert criterion.check(past, masked).tolist() == [False, False]
    with pytest.raises(genmode.ParameterError, match="needs the scores"):
        criterion.check(past)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_any_type_are_judged_in_float32(dtype: torch.dtype) -> None:
    scores = torch.zeros(1, 3, dtype=dtype)
    assert Confidence(stop_confidence=0.34).check(history([[0]]), scores).tolist() == [True]
    assert Confidence(stop_confidence=0.33).check(history([[0]]), scores).tolist() == [False]


# a function ------------------------------------------------------------------------------------------


def test_a_function_decides() -> None:
    past = history([[0, 1], [0, 2]])
    assert check(Callable(stop_when=lambda past: past.ids[:, -1] == 2), past) == [False, True]
    assert check(Callable(stop_when=lambda past: True), past) == [True, True]
    assert check(Callable(), past) == [False, False]
    with pytest.raises(genmode.ParameterError, match=r"return \[2\] of torch.bool"):
        check(Callable(stop_when=lambda past: past.lengths), past)
