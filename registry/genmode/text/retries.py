"""What rows that went back must not repeat, and how often they may go back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..contract import Context, History


class Retries:
    """Where each row went back to, the token that it may not take there again, and how often it tried.

    For `BacktrackingProcessor`. A row that has gone back `retries` times without becoming longer than before is stuck
    until it is; so every row ends, after at most retries + 1 attempts at each length.

    Args:
        context: the call.
        retries: at least 1.
    """

    def __init__(self, context: Context, retries: int) -> None:
        rows, device = context.rows, context.device
        self._retries = retries
        self._lengths = torch.full((rows, retries), -1, device=device)  # of the row where the token is forbidden
        self._tokens = torch.zeros(rows, retries, dtype=torch.long, device=device)
        self._noted = torch.zeros(rows, dtype=torch.long, device=device)  # the oldest gives way
        self._tries = torch.zeros(rows, dtype=torch.long, device=device)
        self._furthest = torch.zeros(rows, dtype=torch.long, device=device)  # the end from which the row went back

    def banned(self, history: History) -> tuple[Tensor, Tensor]:
        """Tokens `[rows, retries]`, long, and which of them are forbidden where each row is now, of that shape, bool."""
        return self._tokens, self._lengths == history.lengths[:, None]

    def stuck(self, lengths: Tensor) -> Tensor:
        """Whether a row of so many tokens has gone back too often to do it again: `[rows]`, bool."""
        return (self._tries >= self._retries) & (lengths < self._furthest)

    def note(self, history: History, counts: Tensor) -> None:
        """Rows went back by `counts` `[rows]` to where they are now; see `BacktrackingProcessor.backtracked`."""
        lengths, went = history.lengths, counts > 0
        # What was forbidden further on followed tokens that are gone.
        self._lengths.masked_fill_(self._lengths > lengths[:, None], -1)
        end = lengths + counts
        tries = torch.where(end <= self._furthest, self._tries, 0) + 1
        self._tries = torch.where(went, tries, self._tries)
        self._furthest = torch.where(went, torch.maximum(self._furthest, end), self._furthest)
        slot, went = (self._noted % self._retries)[:, None], went[:, None]
        self._lengths.scatter_(1, slot, torch.where(went, lengths[:, None], self._lengths.gather(1, slot)))
        self._tokens.scatter_(1, slot, torch.where(went, taken_back(history), self._tokens.gather(1, slot)))
        self._noted = self._noted + went[:, 0]

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        for name in ("_lengths", "_tokens", "_noted", "_tries", "_furthest"):
            setattr(self, name, getattr(self, name)[rows])


def taken_back(history: History) -> Tensor:
    """The first token that each row took back, `[rows, 1]`, long: it still stands behind the row's end.

    For `BacktrackingProcessor.backtracked`, in rows that went back.
    """
    column = history.lengths.clamp(max=history.tokens.shape[1] - 1)[:, None]
    return history.tokens.gather(1, column)
