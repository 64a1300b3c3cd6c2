"""Rows that go back, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

import genmode
from genmode.text import Retries, taken_back

CONTEXT: Any = SimpleNamespace(rows=2, device=torch.device("cpu"))


def past(rows: list[list[int]], lengths: list[int]) -> genmode.History:
    return genmode.History(torch.tensor(rows), torch.tensor(lengths), torch.zeros(2, dtype=torch.long), 1, None)


def banned(retries: Retries, history: genmode.History) -> list[set[int]]:
    tokens, here = retries.banned(history)
    return [set(row[on].tolist()) for row, on in zip(tokens, here, strict=True)]


def test_what_was_taken_back_is_forbidden_where_it_stood() -> None:
    retries = Retries(CONTEXT, 3)
    went = past([[1, 5, 6, 7], [1, 8, 9, 9]], [2, 4])  # the first row took back 6 and 7
    assert taken_back(went)[0].tolist() == [6]
    retries.note(went, torch.tensor([2, 0]))
    assert banned(retries, went) == [{6}, set()]
    assert banned(retries, past([[1, 5, 2, 7], [1, 8, 9, 9]], [3, 4])) == [set(), set()]
    # Back at the same place another token joins it; further ahead, what stood there is forgotten.
    retries.note(past([[1, 5, 2, 7], [1, 8, 9, 9]], [2, 4]), torch.tensor([1, 0]))
    assert banned(retries, went) == [{6, 2}, set()]
    retries.note(past([[1, 5, 2, 7], [1, 8, 9, 9]], [1, 4]), torch.tensor([1, 0]))
    assert banned(retries, went) == [set(), set()]
    retries.reorder(torch.tensor([1, 0]))
    assert banned(retries, past([[1, 8, 9, 9], [1, 5, 2, 7]], [4, 1])) == [set(), {5}]


def test_a_row_is_stuck_until_it_is_longer_than_before() -> None:
    retries = Retries(CONTEXT, 2)
    history = past([[1, 5, 6, 7], [1, 8, 9, 9]], [2, 4])
    for _ in range(2):
        assert retries.stuck(history.lengths).tolist() == [False, False]
        retries.note(history, torch.tensor([2, 0]))
    assert retries.stuck(history.lengths).tolist() == [True, False]
    assert retries.stuck(torch.tensor([4, 4])).tolist() == [False, False]
    longer = past([[1, 5, 6, 7], [1, 8, 9, 9]], [3, 4])
    retries.note(longer, torch.tensor([2, 0]))  # from 5 tokens, more than the 4 before: the first try there
    assert retries.stuck(longer.lengths).tolist() == [False, False]
