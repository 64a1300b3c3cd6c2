"""Rows in which all but the highest scores are masked, that is, -inf.

On the CPU the bounds are found by numpy's sort and partition, and all rows masked in one pass; elsewhere by torch, or
`genmode.cuda.kernels.row_reductions`. Every function returns a new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .selection import ascending, by_kernels, kth_highest, numpy_reads

_INFINITY = np.float32(np.inf)
_SORTED = 2048
"""Up to this size numpy sorts a row sooner than it partitions it."""


def keep_best(scores: Tensor, k: int) -> Tensor:
    """`scores` `[rows, vocab]` with -inf where they are less than the row's k-th highest: a new tensor.

    Args:
        k: from 1 to vocab.
    """
    if not numpy_reads(scores) or scores.shape[-1] > _SORTED:
        return at_least(scores, kth_highest(scores, k))
    bounds: list[float] = []
    for values in ascending(scores).numpy():
        place = len(values) - k
        least, bound = values[place], values[place - 1] if place else -_INFINITY
        if not bound < least:
            first = int(values.searchsorted(least))
            bound = values[first - 1] if first and least == least else -_INFINITY  # than NaN, none is less
        bounds.append(bound)
    return _above(scores, bounds)


def without_tail(scores: Tensor, mass: float, keep: int) -> tuple[Tensor, list[int]]:
    """`scores` with -inf for each row's lowest ones, while their probabilities sum to at most `mass`: a new tensor.

    Args:
        scores: `[rows, vocab]`, which `numpy_reads`.
        keep: so many of the highest stay in any case.

    Returns:
        The scores, and the rows to be done otherwise: those in which equal scores would have to be told apart, or the
        highest is not finite.
    """
    ordered = ascending(scores)
    reached = ordered.softmax(-1).cumsum(-1)
    limit, most = np.float32(mass), max(scores.shape[-1] - keep, 0)
    bounds: list[float] = []
    left: list[int] = []
    for row, (values, masses) in enumerate(zip(ordered.numpy(), reached.numpy(), strict=True)):
        dropped = min(int(masses.searchsorted(limit, "right")), most)
        bounds.append(values[dropped - 1] if dropped else -_INFINITY)
        if bounds[-1] == values[dropped] or not math.isfinite(values[-1]):
            left.append(row)
    return _above(scores, bounds), left


def at_least(scores: Tensor, least: Tensor) -> Tensor:
    """`scores` with -inf where they are less than the row's `least` `[rows, 1]`: a new tensor."""
    if not numpy_reads(scores):
        found = by_kernels("at_least", scores, least)
        return torch.where(scores < least, -torch.inf, scores) if found is None else found
    with np.errstate(over="ignore"):
        return _above(scores, np.nextafter(least.numpy()[:, 0], -_INFINITY).tolist())


def _above(scores: Tensor, bounds: Sequence[float]) -> Tensor:
    """`scores` with -inf where they do not exceed the row's bound, NaN staying; on the CPU."""
    if len(scores) == 1:
        return torch.threshold(scores, float(bounds[0]), -torch.inf)
    values = scores.detach().numpy()
    result = np.full_like(values, -_INFINITY)
    np.copyto(result, values, where=~(values <= np.array(bounds, dtype=np.float32)[:, None]))
    return torch.from_numpy(result)
