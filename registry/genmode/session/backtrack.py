"""Rows that take back what they have decoded, because a processor asks for it (`BacktrackingProcessor.backtrack`).

Each row goes back by a number of its own: a subtraction on the lengths of the history and of the cache. All
counts stay on the device. With h the largest `max_backtrack` of the processors and f the furthest end that a row has
had, columns before f - h are final: a row is not taken back behind them, so a stream may send them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import host_sync
from ..errors import DecodingError

if TYPE_CHECKING:
    from .chain import Chain
    from .stopping import Stopping
    from .token_buffer import TokenBuffer

STEPS_PER_TOKEN = 1000
"""So many steps for each token of the longest result; a call that needs more is going in circles."""


class BacktrackRequests:
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


class Backtracking:
    """Lets the rows of one call go back.

    Args:
        chain: with processors that may take back tokens.
        prompt: tokens of the prompt.
        rows: how many rows there are.
        max_length: of a row.
        device: of the rows.
    """

    def __init__(self, chain: Chain, prompt: int, rows: int, max_length: int, device: torch.device) -> None:
        limits = [one.max_backtrack for one in chain.backtrackers]
        self.max_backtrack = max((limit for limit in limits if limit is not None), default=0)
        self.unlimited = None in limits
        self.named = " and ".join(repr(one.name) for one in chain.backtrackers)
        self._prompt = prompt
        self._furthest = torch.full((rows,), prompt, device=device)
        self._most_steps = STEPS_PER_TOKEN * max(1, max_length - prompt)

    def check(self, index: int) -> None:
        """Raises DecodingError if the call has taken more steps than any result is worth."""
        if index > self._most_steps:
            raise DecodingError(
                f"rows were taken back again and again: after {index} steps the result is not complete. {self.named} "
                "takes back what was decoded, and has to forbid what led there"
            )

    def select(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was."""
        self._furthest = self._furthest.index_select(0, rows)

    def restart(self, lengths: Tensor) -> None:
        """Rows of these lengths, `[rows]`, long, begin again: what lies before is as far as they have come."""
        self._furthest = lengths

    def requests(self, chain: Chain, history: TokenBuffer, width: int) -> BacktrackRequests | None:
        """What the processors say of the next `width` tokens of the history; None if all rows stay."""
        nothing = torch.zeros_like(self._furthest)
        columns: list[Tensor] = []
        said = False
        for position in range(width):
            answers = chain.backtrack(history.ahead(position + 1))
            said = said or any(answer is not None for answer in answers)
            columns.append(torch.stack([nothing if answer is None else answer.clamp(min=0) for answer in answers]))
        if not said:
            return None
        requests = BacktrackRequests(torch.stack(columns, dim=2))
        return None if host_sync.surely_none(requests.back) else requests

    def go_back(
        self, chain: Chain, stopping: Stopping, history: TokenBuffer, requests: BacktrackRequests | None
    ) -> Tensor | int:
        """Take back what is asked for; returns how many tokens each row took back, `[rows]`, long, or 0 for none."""
        lengths = history.lengths
        self._furthest = torch.maximum(self._furthest, lengths)
        if requests is None:
            return 0
        index = requests.first.expand(requests.asked.shape[0], -1, -1)
        asked = requests.asked.gather(2, index)[:, :, 0]  # [processors, rows]
        most = asked.amax(0)
        counts = torch.minimum(most, lengths - self._final(self._furthest)).where(requests.goes, 0)
        chain.rollback(counts)
        stopping.rollback(counts)
        history.set_lengths(lengths - counts, history.bound)
        chain.backtracked(history, [counts.where(mine == most, 0) for mine in asked])
        return counts

    def final(self, lengths: Tensor) -> Tensor:
        """Columns of each row of these lengths `[rows]` before this one are never taken back: `[rows]`, long."""
        return torch.minimum(self._final(torch.maximum(self._furthest, lengths + 1)), lengths)

    def _final(self, furthest: Tensor) -> Tensor:
        if self.unlimited:
            return torch.full_like(furthest, self._prompt)
        return (furthest - self.max_backtrack).clamp(min=self._prompt)
