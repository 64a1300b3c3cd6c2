"""Finished hypotheses by hand: which are kept, what they are worth, and when a unit is done."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genmode_strategies.beams.continuations import Candidates
from genmode_strategies.beams.hypotheses import Hypotheses, continuing

from .hypotheses_support import history_of, parameters, session


def judge(to: Hypotheses, sums: list[float], rows: list[int]) -> bool:
    """Candidates of one unit that end with token 9, and behind them one that goes on."""
    found, more = [*sums, sums[-1] - 1.0], len(sums) * [True]
    ends = torch.tensor([[*more, False]])
    tokens = torch.full_like(ends, 9, dtype=torch.long)
    return bool(to.judge(Candidates(torch.tensor([found]), torch.tensor([[*rows, 0]]), tokens, ends)))


def judge_open(to: Hypotheses, best: float) -> bool:
    """One candidate of one unit, which goes on."""
    row = torch.zeros(1, 1, dtype=torch.long)
    return bool(to.judge(Candidates(torch.tensor([[best]]), row, row, row.bool())))


class TestHypotheses:
    def test_the_best_are_kept(self) -> None:
        kept = Hypotheses(session([[5], [6]], 1), parameters())
        judge(kept, [-1.0, -3.0], [0, 1])
        judge(kept, [-2.0], [0])
        assert sorted(kept.units.worth[0].tolist()) == [-2.0, -1.0]

    def test_worth_is_divided_by_length(self) -> None:
        kept = Hypotheses(session([[5, 7, 7], [6, 7, 7]], 1), parameters(length_penalty=2.0))
        judge(kept, [-9.0], [0])  # two tokens and the ending one
        assert float(kept.units.worth[0, 0]) == -1.0

    @pytest.mark.parametrize(
        ("early", "penalty", "best", "done"),
        [
            (True, 1.0, 0.0, True),
            (False, 1.0, -3.0, True),
            (False, 1.0, -1.0, False),
            ("never", 1.0, -18.1, True),  # at best -18.1 / 9 tokens
            ("never", 1.0, -17.9, False),
            ("never", 0.0, -2.1, True),
            ("never", -1.0, -2.1, True),
        ],
    )
    def test_when_a_unit_is_done(self, early: Any, penalty: float, best: float, done: bool) -> None:
        kept = Hypotheses(session([[5], [6]], 1), parameters(early_stopping=early, length_penalty=penalty))
        judge(kept, [-1.0, -2.0], [0, 1])
        assert judge_open(kept, best) is done

    def test_fewer_than_the_beams_are_never_enough(self) -> None:
        kept = Hypotheses(session([[5], [6]], 1), parameters(early_stopping=True))
        judge(kept, [-1.0], [0])
        assert not judge_open(kept, -9.0)

    def test_what_is_done_takes_no_more(self) -> None:
        kept = Hypotheses(session([[5], [6]], 1), parameters(early_stopping=True))
        assert judge(kept, [-1.0, -2.0], [0, 1])
        assert judge(kept, [-0.1], [0])
        assert sorted(kept.units.worth[0].tolist()) == [-2.0, -1.0]

    def test_the_result(self) -> None:
        running = session([[5, 1], [5, 2]], 1)
        kept = Hypotheses(running, parameters(num_return_sequences=2))
        judge(kept, [-2.0], [1])
        running.history = history_of(torch.tensor([[5, 1, 3], [5, 1, 4]]), 1)
        kept.finish(torch.tensor([-8.0, -1.0]))
        assert running.result.tolist() == [[5, 1, 4], [5, 2, 9]]
        assert running.scores.tolist() == [-0.5, -1.0]

    def test_continuing_candidates_keep_their_order(self) -> None:
        ends = torch.tensor([[True, False, False, True, False]])
        assert continuing(torch.zeros(1, 5), ends, 3).tolist() == [[1, 2, 4]]
