"""Constraints: each kind by hand, a user's own, and how far rows have met them against a slow bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

import genmode
from genmode.testing.models import prompt, tiny
from genmode_strategies.constraint_states import Parts, number
from genmode_strategies.constraints import (
    Constraint,
    DisjunctiveConstraint,
    OrderedConstraint,
    PhrasalConstraint,
    TemplateConstraint,
)

CPU = torch.device("cpu")


def feed(constraint: Constraint, tokens: Sequence[int]) -> list[tuple[bool, bool, bool]]:
    return [constraint.update(token) for token in tokens]


class TestConstraints:
    def test_a_phrase(self) -> None:
        phrase = PhrasalConstraint([5, 6, 7])
        assert (phrase.advance(), phrase.remaining(), phrase.seqlen) == (5, 3, 3)
        assert feed(phrase, [5, 6]) == [(True, False, False)] * 2
        assert (phrase.advance(), phrase.does_advance(7), phrase.does_advance(5)) == (7, True, False)
        assert feed(phrase, [9]) == [(False, False, True)]
        assert phrase.remaining() == 3
        assert feed(phrase, [5, 6, 7])[-1] == (True, True, False)
        assert (phrase.completed, phrase.advance(), phrase.remaining()) == (True, None, 0)

    def test_alternatives(self) -> None:
        either = DisjunctiveConstraint([[5, 6], [5, 7, 8], [9]])
        assert (either.advance(), either.remaining()) == ([5, 9], 3)
        either.update(5)
        assert (either.advance(), either.remaining()) == ([6, 7], 2)
        assert either.update(6) == (True, True, False)
        assert either.remaining() == 0

    def test_copies_are_independent(self) -> None:
        first = DisjunctiveConstraint([[5, 6], [5, 7]])
        first.update(5)
        second, fresh = first.copy(stateful=True), first.copy()
        second.update(6)
        assert (first.remaining(), second.remaining(), fresh.remaining()) == (1, 0, 2)
        first.reset()
        assert first.remaining() == 2

    def test_words_in_order(self) -> None:
        ordered = OrderedConstraint([[5, 6], [7]])
        assert [step[0] for step in feed(ordered, [7, 5, 6, 9, 9])] == [False, True, True, False, False]
        assert ordered.advance() == [7]
        assert ordered.update(7) == (True, True, False)

    def test_a_broken_word_in_order_loses_that_word_alone(self) -> None:
        ordered = OrderedConstraint([[5], [6, 7]])
        assert feed(ordered, [5, 6, 9])[-1] == (False, False, True)
        assert (ordered.advance(), ordered.remaining()) == ([6], 2)

    def test_a_template(self) -> None:
        template = TemplateConstraint([5, None, [6, 7]])
        assert feed(template, [5, 80, 6, 7])[-1] == (True, True, False)
        template.reset()
        template.update(5)
        assert template.advance() is None  # any token will do, so none is asked for
        assert template.remaining() == 3

    @pytest.mark.parametrize("bad", [[], [[]], [-1], [True], "5", None, [1.5]])
    def test_no_phrase(self, bad: Any) -> None:
        with pytest.raises(genmode.ParameterError):
            PhrasalConstraint(bad)

    @pytest.mark.parametrize("bad", [[], [[]], [5], [[5, 6], [5]], [[5], [5]], [[5, -1]]])
    def test_no_alternatives(self, bad: Any) -> None:
        with pytest.raises(genmode.ParameterError):
            DisjunctiveConstraint(bad)

    @pytest.mark.parametrize("bad", [[], [None], [None, 5], [5, None], [5, "x", 6]])
    def test_no_template(self, bad: Any) -> None:
        with pytest.raises(genmode.ParameterError):
            TemplateConstraint(bad)


class Twice(Constraint):
    """A user's own: a token, and later the same token again."""

    def __init__(self, token: int) -> None:
        self.token, self.seen, self.seqlen = token, 0, 2

    def advance(self) -> int | None:
        return None if self.seen == 2 else self.token

    def does_advance(self, token_id: int) -> bool:
        return self.seen < 2 and token_id == self.token

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        stepped = self.does_advance(token_id)
        self.seen += stepped
        return stepped, self.seen == 2, False

    def reset(self) -> None:
        self.seen = 0

    def remaining(self) -> int:
        return 2 - self.seen

    def copy(self, stateful: bool = False) -> Twice:
        new = Twice(self.token)
        new.seen = self.seen if stateful else 0
        return new


class TestOwnConstraint:
    def test_its_states_are_found(self) -> None:
        found = Twice(5).automaton()
        assert (found.edges, found.remaining) == ([(0, 5, 1), (1, 5, 2)], [2, 1, 0])
        assert found.back == [0, 1, 2]  # it loses nothing

    def test_it_is_met(self) -> None:
        result = genmode.generate(
            tiny("llama"), **prompt("llama", 2), num_beams=4, max_new_tokens=12, constraints=[Twice(33)]
        )
        assert ((result[:, -12:] == 33).sum(1) >= 2).all()

    def test_methods_that_contradict_each_other(self) -> None:
        class Wrong(Twice):
            def does_advance(self, token_id: int) -> bool:
                return False

            def copy(self, stateful: bool = False) -> Wrong:
                return Wrong(self.token)

        with pytest.raises(genmode.ParameterError, match="makes no progress"):
            Wrong(5).automaton()

    def test_one_that_never_ends(self) -> None:
        class Endless(Twice):
            def update(self, token_id: int) -> tuple[bool, bool, bool]:
                return True, False, False

            def copy(self, stateful: bool = False) -> Endless:
                return Endless(self.token)

        with pytest.raises(genmode.ParameterError, match="states"):
            Endless(5).automaton()


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
        assert set(parts.words[parts.offers(states)[0, :-1] >= 0].tolist()) == slow.wanted
        assert (int(parts.missing(states)) == 0) == (not slow.pending and slow.begun is None)
        assert int(parts.gain[states.nodes].sum()) == slow.bank
        for name in ("offers", "banks", "missing"):
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
