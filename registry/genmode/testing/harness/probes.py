"""Components that checks run beside the one that they are about, each to see one thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...contract import Context, History, LogitsProcessor, Session, Stage, StoppingCriterion, Strategy
from .check import fail


class Sampling(Strategy):
    """Sampling, for the calls of processors and criteria."""

    contract_version = 1
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}

    def decode(self, session: Session, params: Any) -> None:
        for step in session.steps():
            step.commit(step.sample())


class Counted(StoppingCriterion):
    """Stops all rows after so many tokens."""

    contract_version = 1
    limit: int = 3

    def check(self, history: History) -> Tensor:
        return history.lengths - history.prompt >= self.limit


class Thirds(StoppingCriterion):
    """Stops a row behind any third token."""

    contract_version = 1

    def check(self, history: History) -> Tensor:
        last = history.tokens.gather(1, (history.lengths - 1)[:, None])  # [rows, 1]
        return (last % 3 == 2).any(1)


class Few(LogitsProcessor):
    """Leaves a few tokens."""

    contract_version = 1
    stage = Stage.CONSTRAINT
    tokens: ClassVar[tuple[int, ...]] = (7, 11, 13, 21, 22, 34, 45, 56, 60, 71, 80, 91)

    def process(self, scores: Tensor, history: History) -> Tensor:
        kept = torch.zeros(scores.shape[1], dtype=torch.bool)
        kept[list(self.tokens)] = True
        return scores.masked_fill(~kept.to(scores.device), -torch.inf)


class Ends(LogitsProcessor):
    """Makes token 4 far more probable than any other."""

    contract_version = 1

    def process(self, scores: Tensor, history: History) -> Tensor:
        scores[:, 4] = scores.amax(-1) + 50
        return scores


class Ledger(LogitsProcessor):
    """Writes down what it is told, and compares that with the history."""

    contract_version = 1
    stage = Stage.BIAS

    def begin(self, context: Context) -> None:
        self.context, self.ended = context, 0
        self.rows: list[list[int]] = [[] for _ in range(context.rows)]

    def process(self, scores: Tensor, history: History) -> Tensor:
        running = self.context.unfinished.tolist()  # finished rows are told padding, whatever their history
        for row in (row for row in range(len(self.rows)) if running[row]):
            told, seen = self.rows[row], history.tokens[row, history.prompt : int(history.lengths[row])].tolist()
            if told[: len(seen)] != seen:
                fail(f"row {row}: processors were told {told}, and the history says {seen}")
        return scores

    def accept(self, tokens: Tensor) -> None:
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)

    def reorder(self, rows: Tensor) -> None:
        self.rows = [list(self.rows[row]) for row in rows.tolist()]

    def rollback(self, counts: Tensor) -> None:
        for row, count in zip(self.rows, counts.tolist(), strict=True):
            del row[len(row) - count :]

    def reset(self) -> None:
        self.ended += 1
