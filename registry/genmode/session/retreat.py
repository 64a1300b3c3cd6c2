"""Rows that take back what they have decoded, because a processor asks for it (`LogitsProcessor.retract`).

Each row goes back by a number of its own: a subtraction on the lengths of the history and of the cache. All
counts stay on the device. With h the largest `horizon` of the processors and f the furthest end that a row has
had, columns before f - h are final: a row is not taken back behind them, so a stream may send them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import DecodingError

if TYPE_CHECKING:
    from .session import Session

PATIENCE = 1000
"""So many steps for each token of the longest result; a call that needs more is going in circles."""


class Wishes:
    """What the processors would take back behind each position of a commit.

    Args:
        asked: `[processors, rows, width]`, long.
    """

    def __init__(self, asked: Tensor) -> None:
        self.asked = asked
        self.most = asked.amax(0)  # [rows, width]
        self.back = self.most > 0
        self.first = torch.empty(0, dtype=torch.long)
        self.goes = torch.empty(0, dtype=torch.bool)

    def take(self, first: Tensor) -> Tensor:
        """Which rows go back, `[rows]`, bool, if each stops at position `first` `[rows]`; width for none."""
        width = self.back.shape[1]
        self.first = first.clamp(max=width - 1)[:, None]
        self.goes = self.back.gather(1, self.first)[:, 0] & (first < width)
        return self.goes


class Retreat:
    """Lets the rows of one session go back."""

    def __init__(self, session: Session) -> None:
        horizons = [one.horizon for one in session.chain.retracting]
        self.horizon = max((h for h in horizons if h is not None), default=0)
        self.unlimited = None in horizons
        self.named = " and ".join(repr(one.name) for one in session.chain.retracting)
        self._prompt = session.history.prompt
        self._furthest = torch.full((session.rows,), self._prompt, device=session.device)
        self._most = PATIENCE * max(1, session.max_length - self._prompt)

    def check(self, index: int) -> None:
        """Raises DecodingError if the call has taken more steps than any result is worth."""
        if index > self._most:
            raise DecodingError(
                f"rows were taken back again and again: after {index} steps the result is not complete. {self.named} "
                "takes back what was decoded, and has to forbid what led there"
            )

    def wishes(self, session: Session, width: int) -> Wishes | None:
        """What the processors say of the next `width` tokens of the history; None if all rows stay."""
        nothing = torch.zeros(session.rows, dtype=torch.long, device=session.device)
        columns: list[Tensor] = []
        said = False
        for position in range(width):
            answers = session.chain.retract(session.history.ahead(position + 1))
            said = said or any(answer is not None for answer in answers)
            columns.append(torch.stack([nothing if answer is None else answer.clamp(min=0) for answer in answers]))
        if not said:
            return None
        wishes = Wishes(torch.stack(columns, dim=2))
        return None if session.surely_none(wishes.back) else wishes

    def go_back(self, session: Session, wishes: Wishes | None) -> Tensor | int:
        """Take back what is asked for; returns how many tokens each row took back, `[rows]`, long, or 0 for none."""
        history = session.history
        lengths = history.lengths
        self._furthest = torch.maximum(self._furthest, lengths)
        if wishes is None:
            return 0
        index = wishes.first.expand(wishes.asked.shape[0], -1, -1)
        asked = wishes.asked.gather(2, index)[:, :, 0]  # [processors, rows]
        most = asked.amax(0)
        counts = torch.minimum(most, lengths - self._final(self._furthest)).where(wishes.goes, 0)
        session.chain.rollback(counts)
        session.stopping.rollback(counts)
        history.differ(lengths - counts, history.bound)
        session.withdrawn = session.withdrawn + counts
        session.chain.retracted(history, [counts.where(mine == most, 0) for mine in asked])
        return counts

    def final(self, session: Session) -> Tensor:
        """Columns of each row before this one are never taken back, `[rows]`, long."""
        lengths = session.history.lengths
        return torch.minimum(self._final(torch.maximum(self._furthest, lengths + 1)), lengths)

    def _final(self, furthest: Tensor) -> Tensor:
        if self.unlimited:
            return torch.full_like(furthest, self._prompt)
        return (furthest - self.horizon).clamp(min=self._prompt)
