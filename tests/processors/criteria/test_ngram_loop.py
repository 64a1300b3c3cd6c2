"""Rows that go in circles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmode_processors.criteria import NgramLoop

from ..rows_support import history, ragged
from .criteria_support import ROWS, check


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
