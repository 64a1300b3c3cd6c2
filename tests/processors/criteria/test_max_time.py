"""A time that is up."""

from __future__ import annotations

import pytest
from transformers.generation.stopping_criteria import MaxTimeCriteria

from genmode_processors.criteria import MaxTime

from ..rows_support import begun, history


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
