"""An interrupt or a cancel loses no tokens, at 20 of 200 random points in each run; `GENMODE_SLOW=1` takes them all."""

from __future__ import annotations

import os
import time

import pytest

from ..interrupts import Lines, decoded, fault, tried
from ..strategies.test_architectures import turn

POINTS, SLICES = 200, 10


def due() -> list[int]:
    return (
        [*range(POINTS)]
        if os.environ.get("GENMODE_SLOW")
        else [*range(turn(os.environ, time.time()) % SLICES, POINTS, SLICES)]
    )


def test_an_error_carries_the_beginning_of_the_whole_result() -> None:
    wrong = [trouble for _, trouble in map(tried, due()) if trouble]
    assert wrong == [], "repeat with: python -m tests.interrupts --points 1 --first POINT"


@pytest.mark.parametrize("back", [0, 3, 40])
def test_an_interrupt_at_the_end_of_a_call_carries_the_whole_result(back: int) -> None:
    """Behind the strategy, where the session is closed: there the result is nobody's yet."""
    counting = Lines()
    whole = counting.during(lambda: decoded("greedy"))
    with pytest.raises(KeyboardInterrupt) as caught:
        Lines(counting.count - back).during(lambda: decoded("greedy"))
    assert caught.value.sequences.shape == whole.shape
    assert fault("greedy", caught.value, whole, 12) is None


def test_what_is_no_beginning_is_found() -> None:
    whole = decoded("greedy")
    error = KeyboardInterrupt()
    assert "carries no tokens" in str(fault("greedy", error, whole, 0))
    error.sequences = whole[:, :8].flip(1)  # type: ignore[attr-defined]
    assert "is no beginning" in str(fault("greedy", error, whole, 0))
    error.sequences = whole[:, :8]  # type: ignore[attr-defined]
    assert fault("greedy", error, whole, 3) is None
    assert "4 tokens were streamed, and 3 are carried" in str(fault("greedy", error, whole, 4))
