"""Tokens that end a row."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EosTokenCriteria

from genmode_processors.criteria import Eos

from ..rows_support import history, ragged
from .criteria_support import ROWS, check


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
