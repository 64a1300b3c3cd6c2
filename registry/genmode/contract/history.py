"""The tokens of the rows so far, as components read them."""

from __future__ import annotations

import torch
from torch import Tensor


class History:
    """What each row holds: its prompt, with left padding in front, and what it has decoded.

    Everything here answers alike whether rows share one length or not.

    Attributes:
        starts: `[rows]`, long; columns before `starts[r]` are left padding.
        prompt: columns before this one are the prompt.
        level: the length that all rows share, where the host knows it: always, except where rows take different
            numbers of tokens, as with drafts; then None. For components that keep state from step to step.
    """

    __slots__ = ("_bound", "_buffer", "_inside", "_lengths", "_tokens", "level", "prompt", "starts")

    def __init__(
        self, tokens: Tensor, lengths: Tensor | None, starts: Tensor, prompt: int, level: int | None, bound: int = 0
    ) -> None:
        """A history of these tokens.

        Args:
            tokens: `[rows, width]`, long.
            lengths: `[rows]`, long; None where `level` is given.
            starts, prompt, level: see above.
            bound: no row is longer; 0 for `level`, or without one for the width of `tokens`.
        """
        self._buffer, self._lengths, self.starts, self.prompt, self.level = tokens, lengths, starts, prompt, level
        self._bound = level if level is not None else bound or tokens.shape[1]
        self._tokens: Tensor | None = None
        self._inside: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._buffer.shape[0]

    @property
    def tokens(self) -> Tensor:
        """`[rows, width]`, long: row r's tokens are the columns `[0, lengths[r])`; what lies beyond is undefined.

        No row is longer than `width`, which is the longest row's length as far as the host knows.
        """
        if self._tokens is None:
            self._tokens = self._buffer[:, : self._bound]
        return self._tokens

    @property
    def lengths(self) -> Tensor:
        """`[rows]`, long: how many tokens each row has, left padding included."""
        if self.level is not None:
            return torch.full((self._buffer.shape[0],), self.level, device=self._buffer.device)
        if self._lengths is None:
            raise ValueError("a history needs the lengths of its rows, or one for all")
        return self._lengths

    @property
    def inside(self) -> Tensor:
        """`[rows, width]`, bool: which columns of `tokens` hold text of their row, and not padding."""
        if self._inside is None:
            columns = torch.arange(self.tokens.shape[1], device=self._buffer.device)
            inside = columns >= self.starts[:, None]
            self._inside = inside if self.level is not None else inside & (columns < self.lengths[:, None])
        return self._inside

    def tail(self, count: int) -> Tensor:
        """`[rows, count]`, long: the last tokens of each row; undefined where a row has fewer than `count`."""
        if self.level is not None and self.level >= count:
            return self._buffer[:, self.level - count : self.level]
        columns = torch.arange(-count, 0, device=self._buffer.device) + self.lengths[:, None]
        return self._buffer.gather(1, columns.clamp_(min=0))
