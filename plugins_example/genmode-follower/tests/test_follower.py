"""Drafts by hand, then real calls on a tiny random Llama."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from genmode_follower import Follower

import genmode
from genmode.testing import parametrize_with_checks


def drafted(*rows: list[int], starts: list[int] | None = None, count: int = 3, room: int = 9) -> Any:
    """The tokens of each row's draft, as far as they are meant; shorter rows are followed by 99."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [99] * (width - len(row)) for row in rows])
    lengths, first = torch.tensor([len(row) for row in rows]), torch.tensor(starts or [0] * len(rows))
    level = width if len({*map(len, rows)}) == 1 else None
    history = genmode.History(tokens, lengths, first, 1, level, width)
    session: Any = SimpleNamespace(history=history, draft_room=room, vocab_size=100)
    made = Follower(follower_tokens=count).draft(session)
    if made is None or made.counts is None:
        return made
    return [row[:known] for row, known in zip(made.tokens.tolist(), made.counts.tolist(), strict=True)]


def test_the_most_frequent_follower() -> None:
    assert drafted([5, 6, 5, 7, 5, 7, 5], count=1) == [[7]]
    assert drafted([5, 6, 5, 7, 5, 7, 5]) == [[7, 5, 7]]


def test_of_equals_the_lowest() -> None:
    assert drafted([5, 9, 5, 8, 5], count=1) == [[8]]


def test_a_draft_ends_where_nothing_followed() -> None:
    assert drafted([5, 6, 7]) == [[]]
    assert drafted([5, 6, 7, 5, 8, 5, 8]) == [[5, 8, 5]]


def test_rows_of_their_own_lengths_and_padding() -> None:
    assert drafted([5, 6, 5], [7, 8, 9, 7, 8, 4, 7], count=2) == [[6, 5], [8, 4]]
    assert drafted([0, 0, 5, 0], starts=[2]) == [[]]


def test_no_room() -> None:
    assert drafted([5, 6, 5], room=0) is None
    assert drafted([5, 6, 5], room=1) == [[6]]


@pytest.mark.parametrize("verification", ["coupling", "rejection", "block"])
def test_text_is_that_without_drafts(tiny_model: Any, isolated_host: Any, verification: str) -> None:
    isolated_host.register(Follower)
    inputs = torch.tensor([[5, 6, 7, 5, 6, 7, 5], [9, 9, 9, 4, 9, 9, 9]])
    flags: dict[str, Any] = {"max_new_tokens": 20}
    plain = genmode.generate(tiny_model, inputs, do_sample=False, **flags)
    call: dict[str, Any] = {"draft": "follower", "follower_tokens": 2, "verify": verification, **flags}
    assert torch.equal(genmode.generate(tiny_model, inputs, do_sample=False, **call), plain)
    sampled = genmode.generate(tiny_model, inputs, do_sample=True, seed=3, **call)
    assert sampled.shape == plain.shape
    if verification == "coupling":
        assert torch.equal(sampled, genmode.generate(tiny_model, inputs, do_sample=True, seed=3, **flags))


@parametrize_with_checks([Follower])
def test_conformance(check: Any) -> None:
    check()
