"""Rows read by an automaton, token by token, with a record that rows can go back in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..contract import Context


class TokenStates:
    """The state of an automaton behind each token that each row has decoded.

    For processors that take back what was decoded: any position of a row may be asked for, and rows of a draft too.

    Args:
        lines: `[tokens]`, long: which line of `after` each token has; ids beyond have the last one's.
        after: `[lines, states]`, long: the state behind a token.
        begin: `[rows]`, long: the state behind the prompt.
        context: the call.
    """

    def __init__(self, lines: Tensor, after: Tensor, begin: Tensor, context: Context) -> None:
        self._lines, self._after, self._prompt = lines, after, context.prompt_length
        room = max(2, context.max_length - self._prompt + 2)
        self._states = torch.zeros(len(begin), room, dtype=torch.long, device=begin.device)
        self._states[:, 0] = begin
        self._at = torch.zeros_like(begin)

    def line(self, tokens: Tensor) -> Tensor:
        """The line of each of `tokens`, of any shape."""
        return self._lines[tokens.clamp(0, len(self._lines) - 1)]

    def moved(self, tokens: Tensor, states: Tensor) -> Tensor:
        """The states behind `tokens` that are read in `states`, both of one shape."""
        return self._after[self.line(tokens), states]

    def state(self, lengths: Tensor) -> Tensor:
        """The state behind so many tokens of each row, the prompt included: `[rows]`, long."""
        at = (lengths - self._prompt).clamp(0, self._states.shape[1] - 1)
        return self._states.gather(1, at[:, None])[:, 0]

    def accept(self, tokens: Tensor) -> None:
        """Each row goes on with `tokens` `[rows]`, long."""
        at = self._at.clamp(max=self._states.shape[1] - 2)[:, None]  # drafts and finished rows may lie beyond
        self._states.scatter_(1, at + 1, self.moved(tokens, self._states.gather(1, at)[:, 0])[:, None])
        self._at = self._at + 1

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""
        self._at = self._at - counts

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._states, self._at = self._states[rows], self._at[rows]
