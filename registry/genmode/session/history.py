"""The tokens so far, in a buffer whose rows have their own lengths."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class History:
    """What has been decoded.

    Attributes:
        tokens: `[rows, width]`, long; columns `[0, lengths[r])` are row r's tokens, prompt first with its
            left padding; what lies beyond is undefined.
        starts: `[rows]`, long; columns before `starts[r]` are left padding.
        prompt: columns before this one are the prompt.
        uniform: the length that all rows share, where the host knows it: always, except while drafting.
        bound: no row is longer than this.
    """

    __slots__ = ("_lengths", "bound", "prompt", "starts", "tokens", "uniform")

    def __init__(
        self, tokens: Tensor, lengths: Tensor | None, starts: Tensor, prompt: int, uniform: int | None, bound: int = 0
    ) -> None:
        """`lengths` may be None where `uniform` is given."""
        self.tokens, self._lengths, self.starts, self.prompt = tokens, lengths, starts, prompt
        self.uniform = uniform
        self.bound = max(bound, uniform or 0)

    @property
    def lengths(self) -> Tensor:
        """`[rows]`, long, on the device of the tokens."""
        if self.uniform is not None:
            return torch.full((self.tokens.shape[0],), self.uniform, device=self.tokens.device)
        if self._lengths is None:
            raise ValueError("rows have no lengths")
        return self._lengths

    def differ(self, lengths: Tensor, bound: int) -> None:
        """From now on rows have their own lengths, `[rows]`, long, none above `bound`."""
        self._lengths, self.uniform, self.bound = lengths, None, bound

    def level(self, length: int) -> None:
        """From now on every row has this length."""
        self._lengths, self.uniform = None, length
        self.bound = length

    @property
    def rows(self) -> int:
        """How many rows are decoded."""
        return self.tokens.shape[0]

    @property
    def ids(self) -> Tensor:
        """`[rows, uniform]`, long: the tokens as a rectangle. Raises ValueError if rows differ in length."""
        if self.uniform is None:
            raise ValueError("rows differ in length here; read history.tokens up to history.lengths")
        return self.tokens[:, : self.uniform]

    def rectangles(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One rectangle for each length that occurs: its ids `[rows, length]` and whom it serves.

        Every rectangle has all rows, in order, so that code which knows rows by number sees the right ones;
        only the rows in the second item, `[rows]`, bool, have that length. The item is None if all do.
        Reads lengths on the host.
        """
        if self.uniform is not None:
            yield self.ids, None
            return
        for length in sorted(set(self.lengths.tolist())):
            yield self.tokens[:, :length], self.lengths == length

    def ahead(self, count: int) -> History:
        """The same rows with the `count` tokens behind each row's last one taken as decoded."""
        if count == 0:
            return self
        if self.uniform is not None:
            return History(self.tokens, None, self.starts, self.prompt, self.uniform + count)
        return History(self.tokens, self.lengths + count, self.starts, self.prompt, None, self.bound + count)

    def write(self, tokens: Tensor) -> None:
        """Put `tokens` `[rows, count]` behind each row's last token, without lengthening the rows."""
        count = tokens.shape[1]
        self.reserve((self.uniform or self.bound) + count)
        if self.uniform is not None:
            self.tokens[:, self.uniform : self.uniform + count] = tokens
        else:
            columns = self.lengths[:, None] + torch.arange(count, device=tokens.device)
            self.tokens.scatter_(1, columns, tokens)

    def reserve(self, width: int) -> None:
        """Make the buffer at least `width` columns wide."""
        if width > self.tokens.shape[1]:
            grown = self.tokens.new_zeros(self.rows, max(width, 2 * self.tokens.shape[1]))
            grown[:, : self.tokens.shape[1]] = self.tokens
            self.tokens = grown

    def select(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""
        self.tokens = self.tokens.index_select(0, rows)
        if self._lengths is not None:
            self._lengths = self._lengths.index_select(0, rows)
        self.starts = self.starts.index_select(0, rows)
