"""Calls whose rows come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import genmode

FORKS = {"population"}
RESTARTS = {"population", "rollback"}
NAMES = ("llama", "gpt2", "bart", "t5")
SAMPLED = {"do_sample": True, "top_k": 0, "pad_token_id": 0}
ENDING = {"eos_token_id": [5, 7, 9, 11, *range(50, 60)], "pad_token_id": 0}


def sampled(session: genmode.Session, then: Callable[[int], None] = lambda index: None) -> None:
    for step in session.steps():
        step.commit(step.sample())
        then(step.index)


def widths(model: Any) -> tuple[list[int], Any]:
    """How many rows each forward of the model has, and the hook that tells."""
    seen: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(len(kwargs["input_ids"]))

    return seen, model.register_forward_pre_hook(count, with_kwargs=True)
