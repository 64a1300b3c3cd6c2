"""A function that decides."""

from __future__ import annotations

import pytest

import genmode
from genmode_processors.criteria import Callable

from ..rows_support import history
from .criteria_support import check


def test_a_function_decides() -> None:
    past = history([[0, 1], [0, 2]])
    assert check(Callable(stop_when=lambda past: past.tokens[:, -1] == 2), past) == [False, True]
    assert check(Callable(stop_when=lambda past: True), past) == [True, True]
    assert check(Callable(), past) == [False, False]
    with pytest.raises(genmode.ParameterError, match=r"return \[2\] of torch.bool"):
        check(Callable(stop_when=lambda past: past.lengths), past)
