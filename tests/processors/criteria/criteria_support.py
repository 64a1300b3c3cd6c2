"""What the tests of criteria share."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

import genmode

from ..rows_support import begun

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=10), min_size=1, max_size=4)


def check(criterion: Any, past: genmode.History, **more: Any) -> list[bool]:
    done = begun(criterion, past, **more).check(past)
    assert done.dtype == torch.bool
    assert done.shape == past.lengths.shape
    return done.tolist()
