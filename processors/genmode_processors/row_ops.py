"""What processors that look at tokens share: writes to the scores of few tokens or rows, and what rows are given.

Nothing here loops over rows or the vocabulary, and nothing waits for a device: where the host may not look, shapes
never depend on values. A column that does not count brings a value that leaves its token alone, so that a scatter with
repeated indices has one outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import genmode
from genmode import host_sync

if TYPE_CHECKING:
    from collections.abc import Iterable


def shortest(history: genmode.History) -> int:
    """No row is shorter than this, as far as the host knows; none is longer than `history.tokens.shape[1]`.

    Use it to skip work, never to change results.
    """
    return history.prompt if history.level is None else history.level


def padded(history: genmode.History) -> bool:
    """Whether rows may begin with padding, as far as the host knows. Use it to skip work, never to change results."""
    return not host_sync.surely_none(history.starts > 0)


def every(history: genmode.History, value: bool) -> Tensor:
    """`[rows]`, bool: the same for every row."""
    return torch.full((history.rows,), value, device=history.tokens.device)


def columns(tokens: Tensor) -> Tensor:
    """`[1, width]`, long: the number of each column."""
    return torch.arange(tokens.shape[1], device=tokens.device)[None]


def forbid(scores: Tensor, tokens: Tensor, banned: Tensor) -> Tensor:
    """Set `scores[r, tokens[r, i]]` to -inf wherever `banned[r, i]`, in place.

    Args:
        scores: `[rows, vocab]`; NaN stays NaN.
        tokens: `[rows, count]`, long; ids outside the vocabulary can never be chosen and are left alone.
        banned: `[rows, count]`, bool; False where a token is undefined.
    """
    banned = banned & (tokens < scores.shape[1])
    return lower(scores, tokens.clamp(0, scores.shape[1] - 1), torch.where(banned, -torch.inf, torch.inf))


def lower(scores: Tensor, tokens: Tensor, limits: Tensor) -> Tensor:
    """Bring `scores[r, tokens[r, i]]` down to `limits[r, i]`, float32, in place; +inf leaves it alone."""
    return scores.scatter_reduce_(1, tokens, limits.to(scores.dtype), "amin")


def write(scores: Tensor, tokens: Tensor, value: float, rows: Tensor | None = None) -> Tensor:
    """Set the scores of `tokens` `[count]` to `value`, in place; in the rows `[rows]`, bool, or in all."""
    if rows is None:
        return scores.index_fill_(1, tokens, value)
    block = torch.where(rows[:, None], value, scores.index_select(1, tokens))
    return scores.index_copy_(1, tokens, block)


def force(scores: Tensor, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
    """Leave only `tokens` `[count]`, each with score 0, in place; in the rows `[rows]`, bool, or in all."""
    if rows is None:
        return scores.fill_(-torch.inf).index_fill_(1, tokens, 0.0)
    return write(scores, tokens, 0.0, rows) if mask_rows(scores, rows) else scores


def mask_rows(scores: Tensor, rows: Tensor) -> bool:
    """Set whole rows `[rows]`, bool, to -inf, in place. False if the host can tell that there are none."""
    if host_sync.surely_none(rows):
        return False
    if host_sync.is_free(rows.device):
        scores.index_fill_(0, rows.nonzero()[:, 0], -torch.inf)
    else:
        scores.masked_fill_(rows[:, None], -torch.inf)
    return True


def expand_rows(values: Tensor, rows: int, what: str) -> Tensor:
    """Repeat `[inputs, ...]` to `[rows, ...]`, each input for its own rows (beams, returned sequences)."""
    if values.shape[0] == 0 or rows % values.shape[0]:
        raise genmode.ParameterError(f"{what}: {values.shape[0]} given for {rows} rows; give one for each input or row")
    return values.repeat_interleave(rows // values.shape[0], dim=0)


def in_vocabulary(ids: Iterable[int], vocab_size: int, device: Any) -> Tensor:
    """`[count]`, long: those ids that the model can choose, in order, each once."""
    return torch.tensor(sorted({i for i in ids if 0 <= i < vocab_size}), dtype=torch.long, device=device)


def as_ints(value: Any) -> Any:
    """For pydantic: a tensor or array as nested lists, a number as a list of one; all else as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value
