"""The tokens before each position that a scheme hashes, of rows that are decoded and of texts.

All is a function of the tokens, so that beams, drafts and going back need no state. A row whose own tokens,
left padding aside, are fewer than the context is wide is left unmarked, as if it had come alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

import genmode
from genmode import host_sync

from ..row_ops import columns, shortest


def current(history: genmode.History, width: int) -> tuple[Tensor, Tensor | None]:
    """The last `width` tokens of each row, and which rows have that many.

    Returns:
        `[rows, width]`, long, and `[rows]`, bool; None in place of that if the host knows that all have.
    """
    ready = history.lengths - history.starts >= width
    return history.tail(width), None if host_sync.surely_all(ready) else ready


def occurrences(history: genmode.History, width: int) -> Tensor:
    """At how many earlier positions behind the prompt each row decoded from its present context: `[rows]`, long."""
    tokens, first = history.tokens, max(history.prompt, width)
    count = tokens.shape[1] - first  # positions first .. end - 1 were decoded
    if count <= 0:
        return torch.zeros(history.rows, dtype=torch.long, device=tokens.device)
    ends = history.tail(width)
    same = tokens[:, first - 1 : first - 1 + count] == ends[:, -1:]
    if host_sync.surely_none(same):
        return torch.zeros(history.rows, dtype=torch.long, device=same.device)
    places = columns(tokens)[:, first:]
    same &= history.starts[:, None] + width <= places
    if shortest(history) < tokens.shape[1]:
        same &= places < history.lengths[:, None]
    for back in range(2, width + 1):
        same &= tokens[:, first - back : first - back + count] == ends[:, -back, None]
    return same.sum(1)


def of_texts(tokens: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The contexts of all tokens that have one.

    Args:
        tokens: `[texts, length]`, long; negative ids are padding.

    Returns:
        contexts `[n, width]`, tokens `[n]`, and where they stand: `[texts, length]`, bool.
    """
    there = tokens >= 0
    where = there.clone()
    where[:, :width] = False
    for back in range(1, width + 1):
        where[:, back:] &= there[:, :-back]
    text, place = where.nonzero(as_tuple=True)
    before = torch.arange(-width, 0, device=tokens.device)
    return tokens[text[:, None], place[:, None] + before], tokens[text, place], where


def laid_out(where: Tensor, values: Tensor, fill: float) -> Tensor:
    """`values` `[n]` at the places that are true in `where`, `fill` elsewhere; of the shape of `where`."""
    result = torch.full(where.shape, fill, dtype=values.dtype, device=where.device)
    result[where] = values
    return result
