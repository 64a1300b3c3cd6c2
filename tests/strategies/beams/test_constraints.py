"""Constraints: each kind by hand, and a user's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import prompt, tiny
from genmode_strategies.beams.constraints import (
    DisjunctiveConstraint,
    OrderedConstraint,
    PhrasalConstraint,
    TemplateConstraint,
)

from .constraints_support import Twice, feed

CPU = torch.device("cpu")


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
