"""Lets the model read texts that share a beginning, feeding only what is new."""

from __future__ import annotations

import torch
from torch import Tensor

import genmode

WIDTH = 64
"""So many tokens are read in one forward at most; fewer are rounded up to a power of two."""


class Reader:
    """Runs the session's model beside the rows, on texts of one length.

    Args:
        session: before its first commit.
    """

    def __init__(self, session: genmode.Session) -> None:
        self._prompt, self._starts = session.history.tokens, session.history.starts
        self._draft_model = session.draft_model(session.model)
        self._opening: Tensor | None = None
        self._read = 0
        """So many columns of the texts are in the cache as they are."""
        self._at_end = False
        """Whether the cache ends there."""

    def forget(self, column: int) -> None:
        """The texts may have changed from this column on."""
        self._at_end = self._at_end and self._read <= column
        self._read = min(self._read, column)

    def logits(self, tokens: Tensor, column: int) -> Tensor:
        """What the model says of a column of the texts `tokens` `[rows, room]`: `[rows, vocab]`, float32."""
        if self._opening is None:
            self._opening = self._draft_model.catch_up(self._history(tokens, 0), 0)
            self._at_end = True
        if column == 0:
            self.forget(0)
            return self._opening.clone()
        if self._at_end and self._read == column - 1:
            found = self._draft_model.feed(tokens[:, column - 1])
        else:
            while column - self._read > WIDTH:
                self._read += WIDTH
                self._draft_model.catch_up(self._history(tokens, self._read), WIDTH)
            missing = max(1, column - self._read)
            rounded = 1 << (missing - 1).bit_length()  # a device captures a forward of each width
            found = self._draft_model.catch_up(self._history(tokens, column), min(rounded, column))
        self._read, self._at_end = column, True
        return found

    def _history(self, tokens: Tensor, column: int) -> genmode.History:
        whole = torch.cat([self._prompt, tokens[:, :column]], dim=1)
        return genmode.History(whole, None, self._starts, self._prompt.shape[1], whole.shape[1])
