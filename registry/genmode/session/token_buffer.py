"""The tokens of a running call, in a buffer whose rows have their own lengths."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..contract.history import History


class TokenBuffer(History):
    """A history that the host writes."""

    __slots__ = ()

    @property
    def bound(self) -> int:
        """No row is longer than this."""
        return self._bound

    @property
    def buffer(self) -> Tensor:
        """`[rows, width]`, long: all columns, those behind the longest row included."""
        return self._buffer

    @property
    def ids(self) -> Tensor:
        """`[rows, level]`, long: the tokens as a rectangle. Raises ValueError if rows differ in length."""
        if self.level is None:
            raise ValueError("rows differ in length here; read history.tokens up to history.lengths")
        return self._buffer[:, : self.level]

    def set_lengths(self, lengths: Tensor, bound: int) -> None:
        """From now on rows have their own lengths, `[rows]`, long, none above `bound`."""
        self._lengths, self.level, self._bound = lengths, None, bound
        self._tokens = self._inside = None

    def set_level(self, length: int) -> None:
        """From now on every row has this length."""
        self._lengths, self.level, self._bound = None, length, length
        self._tokens = self._inside = None

    def limit(self, bound: int) -> None:
        """The host learns that no row is longer than `bound`."""
        if bound < self._bound:
            self._bound = bound
            self._tokens = self._inside = None

    def rectangles(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """One rectangle for each length that occurs: its ids `[rows, length]` and whom it serves.

        Every rectangle has as many rows as there are, in order, so that code which knows rows by number sees the right
        ones; only the rows in the second item, `[rows]`, bool, have that length. The item is None if all do. Whatever
        stands in a rectangle is the text of a row: of a longer row its beginning, and in the place of a shorter one, of
        which there is no such text, that of a row which has the length. Reads lengths on the host.
        """
        if self.level is not None:
            yield self.ids, None
            return
        lengths: list[int] = self.lengths.tolist()
        for length in sorted(set(lengths)):
            ids, stand_in = self._buffer[:, :length], lengths.index(length)
            if min(lengths) < length:
                ids = ids[[row if own >= length else stand_in for row, own in enumerate(lengths)]]
            yield ids, self.lengths == length

    def ahead(self, count: int) -> TokenBuffer:
        """The same rows with the `count` tokens behind each row's last one taken as decoded."""
        if count == 0:
            return self
        if self.level is not None:
            return TokenBuffer(self._buffer, None, self.starts, self.prompt, self.level + count)
        return TokenBuffer(
            self._buffer, self.lengths + count, self.starts, self.prompt, None, self._bound + count
        )  # fmt: skip

    def branch(self, tokens: Tensor, counts: Tensor) -> TokenBuffer:
        """The same rows with the first `counts` `[rows]` of `tokens` `[rows, n]` taken as decoded."""
        self.write(tokens)
        width = self._bound + tokens.shape[1]
        return TokenBuffer(self._buffer, self.lengths + counts, self.starts, self.prompt, None, width)

    def continued(self, rows: Tensor, tokens: Tensor) -> TokenBuffer:
        """Candidates: row `rows[i]` continued by `tokens[i]`; both are `[n]`, long."""
        starts = self.starts.index_select(0, rows)
        if self.level is not None:
            ids = torch.cat([self.ids.index_select(0, rows), tokens[:, None]], dim=1)
            return TokenBuffer(ids, None, starts, self.prompt, self.level + 1)
        lengths = self.lengths.index_select(0, rows)
        ids = torch.nn.functional.pad(self.tokens.index_select(0, rows), (0, 1))
        ids.scatter_(1, lengths[:, None], tokens[:, None])
        return TokenBuffer(ids, lengths + 1, starts, self.prompt, None, self._bound + 1)

    def write(self, tokens: Tensor) -> None:
        """Put `tokens` `[rows, count]` behind each row's last token, without lengthening the rows."""
        count = tokens.shape[1]
        self.reserve(self._bound + count)
        if self.level is not None:
            self._buffer[:, self.level : self.level + count] = tokens
        else:
            columns = self.lengths[:, None] + torch.arange(count, device=tokens.device)
            self._buffer.scatter_(1, columns, tokens)

    def append(self, tokens: Tensor) -> None:
        """Every row, all of one length, goes on with its token of `tokens` `[rows]`, long."""
        if self.level is None:
            raise ValueError("rows differ in length: commit(tokens, counts=...) until they are level again")
        self.reserve(self.level + 1)
        self._buffer[:, self.level] = tokens
        self.set_level(self.level + 1)

    def last(self) -> Tensor:
        """The last token of each row: `[rows, 1]`, long."""
        if self.level is not None:
            return self._buffer[:, self.level - 1 : self.level]
        return self._buffer.gather(1, (self.lengths - 1)[:, None])

    def reserve(self, width: int) -> None:
        """Make the buffer at least `width` columns wide."""
        if width > self._buffer.shape[1]:
            grown = self._buffer.new_zeros(self.rows, max(width, 2 * self._buffer.shape[1]))
            grown[:, : self._buffer.shape[1]] = self._buffer
            self._buffer, self._tokens = grown, None

    def select(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""
        self._buffer = self._buffer.index_select(0, rows)
        if self._lengths is not None:
            self._lengths = self._lengths.index_select(0, rows)
        self.starts = self.starts.index_select(0, rows)
        self._tokens = self._inside = None
