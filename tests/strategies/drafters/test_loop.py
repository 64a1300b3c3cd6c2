"""The loop of drafting: how far a draft agrees, also one that a device fills up."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import VOCAB, near, prompt, tiny
from genmode_strategies.drafters.loop import agreeing


def test_agreeing() -> None:
    draft = torch.tensor([[1, 2, 3, 4, 5, 5], [1, 2, 3, 4, 5, 5], [9, 2, 3, 4, 5, 5]])
    chosen = torch.tensor([[1, 2, 3, 4, 9, 5, 7], [1, 2, 3, 4, 5, 5, 7], [1, 2, 3, 4, 5, 5, 7]])
    assert agreeing(draft, chosen).tolist() == [4, 6, 0]
    assert agreeing(None, chosen).tolist() == [0, 0, 0]


class Ahead(genmode.Drafter):
    """Drafts five tokens that are known to be right, and notes how many were run and how many agreed."""

    contract_version = 1
    right: Tensor
    seen: list[tuple[list[int], int]]

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        length = int(session.history.lengths[0])
        return genmode.Draft(self.right[:, length : length + 5])

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        if step.draft is not None:
            self.seen.append((step.draft[0].tolist(), int(agreed[0])))


@pytest.mark.parametrize("late", [False, True])
def test_a_draft_that_a_device_fills_up(late: bool) -> None:
    inputs, model, ahead = prompt("llama", 1), tiny("llama"), Ahead()
    ahead.right, ahead.seen = model.generate(**inputs, do_sample=False, max_new_tokens=30), []
    with host_sync.late_host() if late else nullcontext():
        ours = genmode.generate(model, **inputs, draft=ahead, do_sample=False, max_new_tokens=14)
    start = inputs["input_ids"].shape[1]
    assert torch.equal(ours, ahead.right[:, : start + 14])
    draft, agreed = ahead.seen[0]
    wanted = ahead.right[0, start + 1 : start + 6].tolist()
    assert draft == [*wanted, wanted[-1]] if late else wanted
    assert agreed == 5


class Remembers(transformers.LogitsProcessor):
    """A state machine over texts, as those of grammars are: it knows a text if it was asked about it without its last token."""

    def __init__(self, length: int) -> None:
        self.length, self.states = length, dict[tuple[int, ...], int]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, ids in enumerate(map(tuple, input_ids.tolist())):
            if len(ids) == self.length:
                self.states[ids] = 0
            elif ids not in self.states:
                self.states[ids] = self.states[ids[:-1]] + 1 + ids[-1] % 2  # KeyError: no text of any row
            scores[row, self.states[ids] % VOCAB] += 5.0
        return scores


@pytest.mark.parametrize(
    "way",
    [{"prompt_lookup_num_tokens": 4}, {"assistant_early_exit": 1}, {"assistant": True}, {"strategy": "suffix_lookup"}],
    ids=str,
)  # fmt: skip
def test_a_processor_of_the_callers_is_asked_about_texts_that_rows_have(way: dict[str, Any]) -> None:
    model, inputs = tiny("llama"), {"input_ids": torch.tensor([[5, 7, 3] * 3, [9, 9, 4] * 3, [5, 6, 8] * 3])}
    if way.pop("assistant", False):
        way["assistant_model"] = near("llama")
    call: dict[str, Any] = {**inputs, "max_new_tokens": 12, "do_sample": False}
    plain = genmode.generate(model, **call, logits_processor=transformers.LogitsProcessorList([Remembers(9)]))
    drafted = genmode.generate(model, **call, **way, logits_processor=transformers.LogitsProcessorList([Remembers(9)]))
    assert torch.equal(drafted, plain)
