"""The highest scores of each row, exactly, without sorting the vocabulary.

torch.topk and torch.sort are slow at the size of a vocabulary. Two facts help: the k highest scores lie in the k
blocks whose maxima are highest, so blocks are chosen by their maxima and only their elements compared; and on the
CPU numpy sorts and partitions float32 with vector instructions, about twenty times faster than torch.sort. On CUDA
one reduction gives each row to one block of threads, so that rows are cut into parts there, by
`genmode.cuda.kernels.row_reductions` where there is a Triton. Other devices, other dtypes, short rows, and calls whose
host may not look at tensors (`host_sync.late_host`) go through torch. Which of several equal scores `highest` takes
first is not specified; `topk` takes those that torch.topk takes, which matters in half precision, where equal scores are
common.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import host_sync
from ..cuda.kernels import build as kernels

_BLOCK = 64
_FEW = 160
_SHORT = 4096
_MIDDLE = 40_000
"""Up to this size numpy partitions a row sooner than its blocks are compared."""
_CUDA_BLOCK = 256
_CUDA_FEW = 16
"""More than so many of the highest are found faster by torch.topk there."""
_CUDA_ROWS = 64
"""More rows than this keep the device busy without being cut."""


def numpy_reads(scores: Tensor) -> bool:
    """Whether numpy can work on them as they are: float32, on the CPU, where the host may look."""
    return host_sync.is_free(scores.device) and scores.dtype == torch.float32


def _vectorised(scores: Tensor) -> bool:
    return numpy_reads(scores) and scores.shape[-1] >= _SHORT


def highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row in descending order, and their positions; as torch.topk.

    Args:
        scores: `[rows, vocab]`, floating point.
        k: from 1 to vocab.

    Returns:
        values `[rows, k]` of the dtype of scores, positions `[rows, k]` long.
    """
    vocab = scores.shape[-1]
    if not _vectorised(scores) or k > vocab // 2:
        found = by_kernels("highest", scores, k) if k <= kernels.MOST else None
        return topk(scores, k) if found is None else (found[0].to(scores.dtype), found[1])
    if k <= _FEW and k <= vocab // _BLOCK:
        return _few(scores, k, _BLOCK)
    highest_k = np.argpartition(scores.detach().numpy(), vocab - k, axis=-1)[:, vocab - k :]
    ids = torch.from_numpy(np.ascontiguousarray(highest_k))
    values, order = scores.gather(-1, ids).sort(-1, descending=True)
    return values, ids.gather(-1, order)


def topk(
    scores: Tensor, k: int, plus: Tensor | None = None, over: Tensor | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same of (scores + plus) / over; also of equal ones those that torch.topk takes, in its order.

    Args:
        plus: `[rows, n]`, float32: what is added to each of n equal parts of a row; None for nothing.
        over: `[rows, vocab]`, float32: what scores are divided by; None for 1.
    """
    if k <= kernels.MOST:
        found = by_kernels("highest", scores, k, plus, over, True)
        if found is not None:  # torch.topk sorts what it has found as torch.sort does
            values, order = found[0].sort(-1, descending=True)
            return values, found[1].gather(1, order)
    scores = _plus(scores, plus)
    scores = scores if over is None else scores / over
    if scores.device.type == "cuda" and scores.dim() == 2 and k <= _CUDA_FEW and scores.shape[1] >= _SHORT:
        return _few(scores, k, _CUDA_BLOCK)
    return scores.topk(k)


def _plus(scores: Tensor, plus: Tensor | None) -> Tensor:
    if plus is None:
        return scores
    sums: Tensor = scores.unflatten(1, (plus.shape[1], -1)) + plus[:, :, None]
    return sums.flatten(1)


def by_kernels(name: str, scores: Tensor, *arguments: Any) -> Any:
    """What a function of `genmode.cuda.kernels.row_reductions` gives; None where torch serves as well, or has to."""
    if (
        scores.device.type != "cuda" or scores.dim() != 2 or scores.shape[1] < _SHORT or scores.stride(1) != 1
        or scores.dtype == torch.float64
    ):  # fmt: skip
        return None
    module = kernels.load("row_reductions")
    if module is None:
        return None
    if name == "highest" and kernels.pending("select"):
        return None  # torch finds the same meanwhile
    if name == "softmax":
        kernels.wait("softmax")  # torch's differs in the last bits
    try:
        with torch.cuda.device(scores.device):  # Triton starts kernels on the current one
            return getattr(module, name)(scores, *arguments)
    except kernels.KernelError as error:
        kernels.give_up(error)
        return None


def _few(scores: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """The same where there are at least k blocks of `block` scores."""
    blocks = scores.shape[-1] // block
    whole = blocks * block
    table = scores[:, :whole].unflatten(-1, (blocks, block))
    best = table.amax(-1).topk(k, sorted=False).indices  # [rows, k] blocks
    if block == _CUDA_BLOCK:  # of equals torch takes the first ones there
        best = best.sort(-1).values
    values = table.gather(1, best[..., None].expand(-1, -1, block)).flatten(1)  # [rows, k * block]
    if whole == scores.shape[-1]:
        values, found = values.topk(k)
        return values, best.gather(1, found // block).mul_(block).add_(found % block)
    values, found = torch.cat([values, scores[:, whole:]], -1).topk(k)
    inside = found.clamp(max=k * block - 1)
    ids = best.gather(1, inside // block).mul_(block).add_(inside % block)
    return values, torch.where(found < k * block, ids, found - k * block + whole)


def leading(scores: Tensor, most: int) -> tuple[Tensor, Tensor, bool]:
    """Some thousand of the highest scores of each row, however many are quick to find, in descending order.

    No score that is not returned is higher than one that is.

    Args:
        scores: `[rows, vocab]`, floating point.
        most: how many to return at most.

    Returns:
        values `[rows, k]` of the dtype of scores, positions `[rows, k]` long, and whether rows differ in their
        number, those of fewer than k being filled up with -inf and position 0.
    """
    rows, vocab = scores.shape
    blocks = vocab // _BLOCK
    # were scores in random order, a block's maximum would be below the n-th score with chance exp(-n / blocks)
    limit = int(blocks * math.exp(-0.6 * most / max(blocks, 1)))
    if not _vectorised(scores) or limit < 8:
        return *highest(scores, min(most, vocab)), False
    table = scores.detach()[:, : blocks * _BLOCK].unflatten(-1, (blocks, _BLOCK))
    lowest = np.partition(table.amax(-1).numpy(), limit, axis=-1)[:, limit, None]
    found = np.flatnonzero(scores.detach().numpy() >= lowest)
    if len(found) > rows * most:
        return *highest(scores, most), False
    row, column = np.divmod(found, vocab)
    counts = np.bincount(row, minlength=rows)
    if counts.max() > most:
        return *highest(scores, most), False
    place = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    ids = torch.zeros(rows, int(counts.max()), dtype=torch.long)
    ids.numpy()[row, place] = column
    values = scores.gather(-1, ids)
    if rows > 1:
        values.masked_fill_(torch.arange(ids.shape[-1]) >= torch.from_numpy(counts)[:, None], -torch.inf)
    values, order = values.sort(-1, descending=True)
    return values, ids.gather(-1, order), True


def kth_highest(scores: Tensor, k: int) -> Tensor:
    """The k-th highest score of each row, `[rows, 1]`; k from 1 to vocab."""
    if k == 1:
        return scores.amax(-1, keepdim=True)
    vocab = scores.shape[-1]
    if numpy_reads(scores) and (k > _FEW or vocab <= _MIDDLE):
        return torch.from_numpy(np.partition(scores.detach().numpy(), vocab - k, axis=-1)[:, vocab - k, None])
    return highest(scores, k)[0][:, -1:]


def ascending(scores: Tensor) -> Tensor:
    """The scores of each row in ascending order, `[rows, vocab]`; the values that torch.sort returns."""
    if not numpy_reads(scores):
        return scores.sort(-1).values
    return torch.from_numpy(np.sort(scores.detach().numpy(), axis=-1))


def order_of(keys: Tensor) -> Tensor:
    """Positions that sort each row in ascending order, the first of equal keys first.

    Args:
        keys: `[rows, vocab]`, floating point, at least 0; NaN comes last.

    Returns:
        `[rows, vocab]`, long.
    """
    vocab = keys.shape[-1]
    if not _vectorised(keys) or vocab >= 2**31:
        return torch.sort(keys, dim=-1, stable=True).indices
    # the bits of floats that are not negative sort like the floats; the position below them breaks ties
    packed = keys.abs().view(torch.int32).long().bitwise_left_shift_(32).bitwise_or_(torch.arange(vocab))
    return torch.from_numpy(np.sort(packed.numpy(), axis=-1)).bitwise_and_(0xFFFFFFFF)


def count_above(scores: Tensor, threshold: float) -> int:
    """How many scores of the fullest row are above the threshold. Waits for the device."""
    if not _vectorised(scores):
        return int((scores > threshold).sum(-1).amax())
    above = scores.detach().numpy() > threshold
    whole = int(np.count_nonzero(above))  # many times faster than along an axis
    return whole if len(above) == 1 else int(np.count_nonzero(above, axis=-1).max())


def first_best(scores: Tensor) -> Tensor:
    """The highest score of each row `[rows, vocab]`, the first of equals: `[rows]`, long; as torch.argmax."""
    found = by_kernels("highest", scores, 1)
    if found is not None:
        ids: Tensor = found[1][:, 0]
        return ids
    parts = _parts(scores)
    if parts == 1:
        return scores.argmax(-1)
    values, places = scores.unflatten(-1, (parts, -1)).max(-1)  # [rows, parts]
    best = values.argmax(-1, keepdim=True)
    inside: Tensor = places.gather(-1, best)
    tokens: Tensor = best * (scores.shape[-1] // parts) + inside
    return tokens[:, 0]


def highest_values(scores: Tensor) -> Tensor:
    """The highest score of each row `[rows, vocab]`: `[rows]`; NaN where there is one."""
    found = by_kernels("highest", scores, 1)
    if found is not None:
        values: Tensor = found[0][:, 0].to(scores.dtype)
        return values
    parts = _parts(scores)
    return scores.amax(-1) if parts == 1 else scores.unflatten(-1, (parts, -1)).amax(-1).amax(-1)


def sums(values: Tensor) -> Tensor:
    """The sum of each row `[rows, vocab]`: `[rows]`."""
    parts = _parts(values)
    return values.sum(-1) if parts == 1 else values.unflatten(-1, (parts, -1)).sum(-1).sum(-1)


def softmax(scores: Tensor, plus: Tensor | None = None) -> Tensor:
    """Probabilities of each row of `[rows, vocab]`, float32; as torch.softmax, which is slow on few and long rows.

    Args:
        plus: as of `topk`.
    """
    found = _normalised(scores, False, plus)
    return _plus(scores, plus).softmax(-1, dtype=torch.float32) if found is None else found


def log_softmax(scores: Tensor) -> Tensor:
    """Their logarithms; as torch.log_softmax."""
    found = _normalised(scores, True, None)
    return scores.log_softmax(-1, dtype=torch.float32) if found is None else found


def _normalised(scores: Tensor, log: bool, plus: Tensor | None) -> Tensor | None:
    return by_kernels("softmax", scores, log, plus) if scores.shape[0] <= _CUDA_ROWS else None


def _parts(scores: Tensor) -> int:
    """Parts of equal size to reduce a row by: on CUDA one reduction has only one block for each row."""
    if scores.device.type != "cuda" or scores.shape[-1] < _SHORT:
        return 1
    return next((parts for parts in range(1024, 31, -1) if scores.shape[-1] % parts == 0), 1)
