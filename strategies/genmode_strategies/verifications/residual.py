"""What is left of one distribution once another has had its part."""

from __future__ import annotations

import torch
from torch import Tensor


def at(probabilities: Tensor, tokens: Tensor) -> Tensor:
    """The probability of each token: `[rows, k]`, from `[rows, k or more, vocab]` and `tokens` `[rows, k]`, long."""
    return probabilities[:, : tokens.shape[1]].gather(2, tokens[:, :, None])[:, :, 0]


def row_at(probabilities: Tensor, places: Tensor) -> Tensor:
    """The distribution of each row at a place of its own: `[rows, vocab]`, from `[rows, k, vocab]`, `places` `[rows]`.

    Places beyond the last stand for the last.
    """
    places = places.clamp(max=probabilities.shape[1] - 1)
    return probabilities.gather(1, places[:, None, None].expand(-1, 1, probabilities.shape[2]))[:, 0]


def left_over(p: Tensor, q: Tensor, inside: Tensor) -> Tensor:
    """max(p - q, 0), normalised: `[rows, vocab]`, from two of that shape; p itself for other rows than `inside` `[rows]`.

    Where nothing is left, p and q differ by rounding alone, and p stands in.
    """
    rest = (p - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    return torch.where(inside[:, None] & (total > 0), rest / total, p)
