"""The loop of drafting: how far a draft agrees, also one that a device fills up."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import prompt, tiny
from genmode_strategies.drafters.verification import agreeing, decode_with


def test_agreeing() -> None:
    draft = torch.tensor([[1, 2, 3, 4, 5, 5], [1, 2, 3, 4, 5, 5], [9, 2, 3, 4, 5, 5]])
    chosen = torch.tensor([[1, 2, 3, 4, 9, 5, 7], [1, 2, 3, 4, 5, 5, 7], [1, 2, 3, 4, 5, 5, 7]])
    assert agreeing(draft, chosen).tolist() == [4, 6, 0]
    assert agreeing(None, chosen).tolist() == [0, 0, 0]


class Ahead:
    """Drafts five tokens that are known to be right, and notes how many were run and how many agreed."""

    def __init__(self, session: genmode.Session, right: Tensor) -> None:
        self.session, self.right, self.seen = session, right, list[tuple[list[int], int]]()

    def draft(self) -> Tensor | None:
        length = int(self.session.history.lengths[0])
        return self.right[:, length : length + 5]

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        if step.draft is not None:
            self.seen.append((step.draft[0].tolist(), int(agreed[0])))


@pytest.mark.parametrize("late", [False, True])
def test_a_draft_that_a_device_fills_up(late: bool) -> None:
    inputs, model, found = prompt("llama", 1), tiny("llama"), list[Ahead]()
    right = model.generate(**inputs, do_sample=False, max_new_tokens=30)

    class Guessing(genmode.Strategy):
        contract_version = 1
        needs = frozenset({genmode.Need.ROLLBACK})

        def decode(self, session: genmode.Session, params: Any) -> None:
            found.append(Ahead(session, right))
            decode_with(found[0], session, sample=False)

    with host_sync.late_host() if late else nullcontext():
        ours = genmode.generate(model, **inputs, strategy=Guessing, max_new_tokens=14)
    start = inputs["input_ids"].shape[1]
    assert torch.equal(ours, right[:, : start + 14])
    draft, agreed = found[0].seen[0]
    wanted = right[0, start + 1 : start + 6].tolist()
    assert draft == [*wanted, wanted[-1]] if late else wanted
    assert agreed == 5
