"""Limits of each row."""

from __future__ import annotations

import copy

import pytest
import torch

import genmode
from genmode_processors.criteria import RowLimits

from ..rows_support import begun, context, history
from .criteria_support import check


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
        RowLimits(row_max_new_tokens=[1, 2]).begin(context(history([[0]] * 3)))
    for value in ([], [-1]):
        with pytest.raises(ValueError, match="row_max_new_tokens"):
            RowLimits(row_max_new_tokens=value)
