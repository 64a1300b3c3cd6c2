"""A length that is enough."""

from __future__ import annotations

import pytest
from transformers import MaxLengthCriteria

from genmode_processors.criteria import MaxLength

from ..rows_support import history, ragged
from .criteria_support import check


@pytest.mark.parametrize(("length", "done"), [(2, False), (3, True), (4, True)])
def test_a_length_is_enough(length: int, done: bool) -> None:
    assert check(MaxLength(max_length=3), history([[0] * length] * 2)) == [done] * 2
    assert check(MaxLength(max_length=3), ragged([[0] * length, [0] * 9])) == [done, True]
    theirs = MaxLengthCriteria(3)
    assert MaxLength.adopt(theirs).check(history([[0] * length])).tolist() == [done]
    assert check(MaxLength(), history([[0] * length])) == [False]
