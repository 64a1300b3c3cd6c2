"""Whatever a strategy does, logits, tokens and processors stay those of its rows."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode import History
from genmode.testing.harness.models import VOCAB, ids, prompt, tiny
from genmode.testing.harness.probes import Ledger

from .session_support import run


def expected(name: str, context: Tensor, source: Mapping[str, Tensor], row: int) -> Tensor:
    """Logits behind every token of one row, run from scratch: `[tokens, vocab]`."""
    inputs: dict[str, Any] = {"input_ids": context[None]}
    if name in ("t5", "bart"):
        inputs = {key: value[row, None] for key, value in source.items()} | {"decoder_input_ids": context[None]}
    result: Tensor = tiny(name)(**inputs).logits[0].float()
    return result


class Mirror(Ledger):
    """Keeps each row's tokens, prompt included, and holds them against the history."""

    def __init__(self, side: Tensor | None = None) -> None:
        super().__init__()
        self.side, self.side_model = side, None

    def begin(self, context: genmode.Context) -> None:
        super().begin(context)
        self.checked = 0
        self.rows = [row.tolist() for row in context.history.tokens]
        self.side_model = None if self.side is None else context.side_model(self.side)

    def process(self, scores: Tensor, history: History) -> Tensor:
        for row, tokens in enumerate(self.rows):
            if self.context.unfinished[row]:
                assert tokens == history.tokens[row, : history.lengths[row]].tolist()
                self.checked += 1
        return scores


class Anything:
    """Does at random what a strategy may do, and compares what the session says with forwards from scratch."""

    def __init__(self, name: str, seed: int, source: Mapping[str, Tensor], drafts: bool, mirror: Mirror) -> None:
        self.name, self.source, self.drafts, self.mirror = name, source, drafts, mirror
        self.dice = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.done: set[str] = set()

    def tokens(self, *shape: int) -> Tensor:
        return torch.randint(5, 95, shape, generator=self.torch)

    def __call__(self, session: genmode.Session) -> None:
        self.session, self.copies = session, session.rows // session.num_inputs
        context, side_model = self.mirror.side, self.mirror.side_model
        for step in session.steps():
            self.check(step)
            if side_model is not None and context is not None and self.dice.random() < 0.7:
                for row in range(session.rows):
                    decoded = session.history.tokens[row, session.prompt_length : session.history.lengths[row]]
                    if session.unfinished[row]:
                        whole = torch.cat([context[row // self.copies], decoded])
                        self.close(side_model.logits()[row], expected(self.name, whole, self.source, 0)[-1])
            self.act(step)

    def check(self, step: genmode.Step) -> None:
        history = self.session.history
        for row in self.session.unfinished.nonzero()[:, 0].tolist():
            text = history.tokens[row, history.starts[row] : history.lengths[row]]
            drafted = step.draft[row] if step.draft is not None else text[:0]
            wanted = expected(self.name, torch.cat([text, drafted]), self.source, row // self.copies)
            room = self.session.max_length - int(
                history.lengths[row]
            )  # what a draft says behind the longest result is never used
            self.close(step._scores.each_logits[row, :room], wanted[len(text) - 1 :][:room])
            self.close(step.logits[row], wanted[len(text) - 1])

    def close(self, ours: Tensor, wanted: Tensor) -> None:
        torch.testing.assert_close(ours, wanted, atol=2e-4, rtol=2e-4)

    def act(self, step: genmode.Step) -> None:
        session, rows = self.session, self.session.rows
        if step.draft is not None or session.history.level is None:
            self.done.add("ragged" if session.history.level is None else "draft")
            width = 1 + (step.draft.shape[1] if step.draft is not None else 0)
            if self.dice.random() < 0.5:
                assert step._scores.each_scores.shape == (rows, width, VOCAB)
            counts = torch.randint(1, width + 1, (rows,), generator=self.torch)
            chosen = self.tokens(rows, width)
            if step.draft is not None:
                kept = torch.arange(width - 1) < counts[:, None] - 1
                chosen[:, :-1] = step.draft.where(kept, chosen[:, :-1])
            step.commit(chosen, counts=counts)
        else:
            if self.dice.random() < 0.5:
                assert step.scores.shape == (rows, VOCAB)
            acts = ["plain", "look"] + (["reorder"] * 3 if self.copies > 1 else [])
            act = self.dice.choice(acts)
            self.done.add(act)
            if act == "plain":
                step.commit(self.tokens(rows))
            elif act == "look":
                self.look(step)
            else:
                within = torch.randint(self.copies, (rows,), generator=self.torch)
                first = torch.arange(rows) // self.copies * self.copies
                step.commit(self.tokens(rows), rows=first + within)
        if self.drafts and self.dice.random() < 0.6:
            session.draft(self.tokens(rows, self.dice.randint(1, 4)))

    def look(self, step: genmode.Step) -> None:
        session = self.session
        candidates = self.tokens(session.rows, 3)
        found = step.look(candidates, one_by_one=self.dice.random() < 0.5)
        for row in session.unfinished.nonzero()[:, 0].tolist():
            text = session.history.tokens[row, session.history.starts[row] : session.history.lengths[row]]
            for place, token in enumerate(candidates[row]):
                wanted = expected(self.name, torch.cat([text, token[None]]), self.source, row // self.copies)
                self.close(found.logits[row, place], wanted[-1])
        taken = torch.randint(3, (session.rows,), generator=self.torch)
        step.commit(candidates.gather(1, taken[:, None])[:, 0], taken=taken)


CASES = {
    "static": ("llama", 3, 1, {}),
    "static, beams": ("llama", 2, 3, {}),
    "static, eager attention": ("gpt2", 3, 2, {}),
    "portable": ("llama", 3, 1, {"prefill_chunk_size": 64}),
    "portable, beams": ("qwen2", 2, 2, {"prefill_chunk_size": 64}),
    "sliding window": ("gemma3", 3, 1, {}),
    "sliding window, beams": ("gemma3", 1, 3, {}),
    "encoder": ("bart", 3, 1, {}),
    "encoder, beams": ("t5", 2, 2, {}),
    "no cache": ("llama", 2, 2, {"use_cache": False}),
}


@pytest.mark.oldest
@pytest.mark.parametrize("case", CASES)
def test_whatever_a_strategy_does(case: str) -> None:
    name, rows, beams, flags = CASES[case]
    done: set[str] = set()

    @given(st.integers(0, 10**6), st.booleans())
    @settings(max_examples=5)
    def play(seed: int, drafts: bool) -> None:
        source = prompt(name, rows)
        beside = name not in ("t5", "bart") and beams == 1 and flags.get("use_cache", True)
        mirror = Mirror(ids(rows, 5, seed=8) if beside else None)
        anything = Anything(name, seed, source, drafts, mirror)
        run(
            anything, name, inputs=source, beams=beams, needs={"rollback"} if drafts else (), processors=mirror,
            eos_token_id=[40, 41, 42], max_new_tokens=9, **flags,
        )  # fmt: skip
        done.update(anything.done)

    play()
    assert done >= {"plain", "look", "draft", "ragged"} | ({"reorder"} if beams > 1 else set())


@pytest.mark.parametrize(("name", "rows", "beams"), [("mamba", 1, 1), ("mamba", 1, 3), ("lfm2", 1, 2)])
def test_whatever_a_strategy_does_to_a_recurrent_model(name: str, rows: int, beams: int) -> None:
    @given(st.integers(0, 10**6))
    @settings(max_examples=5)
    def play(seed: int) -> None:
        source, mirror = prompt(name, rows), Mirror()
        run(Anything(name, seed, source, False, mirror), name, inputs=source, beams=beams, processors=mirror)

    play()
