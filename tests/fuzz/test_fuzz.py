"""A few hundred calls of the fuzzer; others each day, so that many are seen over time."""

from __future__ import annotations

import datetime

import pytest

from .report import fuzz

CALLS, PORTION = 300, 50
TODAY = datetime.date.today().toordinal()
"""Changes by the day; what fails prints the command that repeats it."""


@pytest.mark.parametrize("first", range(0, CALLS, PORTION))
def test_calls_keep_the_promises(first: int) -> None:
    tally = fuzz(TODAY, range(first, first + PORTION))
    assert not tally.faults, str(tally)
    assert tally.outcomes["result"] > PORTION // 5, str(tally)
