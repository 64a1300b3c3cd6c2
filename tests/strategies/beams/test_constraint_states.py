"""How far rows have met their constraints, against a slow bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import torch

import genmode
from genmode_strategies.beams.constraint_states import Parts, number
from genmode_strategies.beams.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint

CPU = torch.device("cpu")


class Slowly:
    """The bookkeeping of transformers 4.49 for phrases and alternatives, token by token."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.pending = [one.copy() for one in constraints]
        self.longest = max(one.seqlen for one in constraints)
        self.met: list[Constraint] = []
        self.begun: Constraint | None = None

    def add(self, token: int) -> None:
        if self.begun is not None:
            _, completed, lost = self.begun.update(token)
            if lost:
                self.pending.append(self.begun.copy())
                self.begun = None
            elif completed:
                self.met.append(self.begun)
                self.begun = None
            return
        for one in self.pending:
            if one.does_advance(token):
                _, completed, _ = one.update(token)
                self.pending.remove(one)
                if completed:
                    self.met.append(one)
                else:
                    self.begun = one
                return

    @property
    def wanted(self) -> set[int]:
        found: set[int] = set()
        for one in [self.begun] if self.begun is not None else self.pending:
            advance = one.advance()
            found |= set(advance) if isinstance(advance, list) else {advance} if advance is not None else set()
        return found

    @property
    def bank(self) -> int:
        begun = self.longest - self.begun.remaining() if self.begun is not None else 0
        return len(self.met) * self.longest + begun


WORD = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@st.composite
def constraint_lists(draw: Any) -> list[Constraint]:
    found: list[Constraint] = []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.lists(WORD, min_size=1, max_size=3))
        try:
            found.append(PhrasalConstraint(words[0]) if len(words) == 1 else DisjunctiveConstraint(words))
        except genmode.ParameterError:  # one word begins another
            found.append(PhrasalConstraint(words[0]))
    return found


@hypothesis.given(constraints=constraint_lists(), tokens=st.lists(st.integers(0, 6), max_size=12))
def test_states_agree_with_the_slow_bookkeeping(constraints: list[Constraint], tokens: list[int]) -> None:
    slow, parts = Slowly(constraints), Parts(constraints, CPU)
    states = parts.begin(1)
    table = number(parts, states, 7, CPU)
    assert table is not None
    whole, place = table
    for token in tokens:
        one = torch.tensor([token])
        slow.add(token)
        states, place = parts.after(states, one), whole.after(place, one)
        assert set(parts.words[parts.advancing(states)[0, :-1] >= 0].tolist()) == slow.wanted
        assert (int(parts.missing(states)) == 0) == (not slow.pending and slow.begun is None)
        assert int(parts.gain[states.nodes].sum()) == slow.bank
        for name in ("advancing", "banks", "missing"):
            assert torch.equal(getattr(parts, name)(states), getattr(whole, name)(place))


class TestStates:
    def test_the_prompt_is_read(self) -> None:
        parts = Parts([PhrasalConstraint([5, 6]), PhrasalConstraint([7])], CPU)
        ids = torch.tensor([[1, 5, 6, 7], [5, 5, 6, 1], [6, 7, 1, 5]])
        states = parts.read(parts.begin(3), ids, torch.tensor([0, 0, 1]))
        assert parts.missing(states).tolist() == [0, 3, 1]

    def test_padding_is_not(self) -> None:
        parts = Parts([PhrasalConstraint([0])], CPU)
        states = parts.read(parts.begin(2), torch.tensor([[0, 5]] * 2), torch.tensor([1, 0]))
        assert parts.missing(states).tolist() == [1, 0]

    def test_a_table_that_would_be_too_large(self) -> None:
        parts = Parts([PhrasalConstraint([token]) for token in range(16)], CPU)
        assert number(parts, parts.begin(1), 20, CPU) is None
