"""How many tokens a model drafts at a time.

Constant, or transformers' heuristic: two more where all of a draft was taken, else one less, at least 1. Here
every row counts for itself, and a draft is as long as the mean of the rows that are still decoded; for one
row that is transformers' rule. On a device the number is known one draft late.
"""

from __future__ import annotations

import torch
from torch import Tensor

import genmode


class Constant:
    """The same number every time.

    Attributes:
        now: tokens of the next draft.
    """

    def __init__(self, first: int) -> None:
        self.now = first

    def learn(self, width: int, agreed: Tensor, running: Tensor) -> None:
        """A draft of `width` tokens was verified; see `Drafter.learn`."""


class Heuristic(Constant):
    """Grows by 2 and shrinks by 1."""

    def __init__(self, session: genmode.Session, first: int) -> None:
        super().__init__(first)
        self.each = torch.full((session.rows,), first, device=session.device)
        self.readback = session.async_readback(2)

    def learn(self, width: int, agreed: Tensor, running: Tensor) -> None:
        changed = torch.where(agreed == width, self.each + 2, (self.each - 1).clamp(min=1))
        self.each = changed.where(running, self.each)
        seen = self.readback.exchange(torch.stack([(self.each * running).sum(), running.sum()]))
        if seen is not None and int(seen[1]):
            self.now = max(1, round(int(seen[0]) / int(seen[1])))
