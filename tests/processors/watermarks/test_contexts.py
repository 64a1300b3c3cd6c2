"""Contexts that occur again."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from genmode_processors.watermarks.contexts import occurrences

from .marks_support import past


@given(st.lists(st.integers(0, 2), min_size=3, max_size=20), st.integers(1, 3))
def test_occurrences_by_definition(tokens: list[int], width: int) -> None:
    for prompt in (1, 2):
        for end in range(max(prompt, width), len(tokens) + 1):
            expected = sum(
                tokens[at - width : at] == tokens[end - width : end] for at in range(max(prompt, width), end)
            )
            assert occurrences(past(torch.tensor([tokens[:end]]), prompt), width).tolist() == [expected]
