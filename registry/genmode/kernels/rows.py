"""Softmax and selection of few rows as long as a vocabulary: each row is read by many programs at once.

A reduction of torch's gives a row to one block of threads, which leaves most of a device idle where rows are few.
Here a row is cut into parts. For softmax each part gives its maximum m and sum l of exp(x - m), and

    log p(x) = x - (m + log l),    m = max_s m_s,    l = sum_s exp(m_s - m) l_s

puts them together. To select, each part gives its k best, found by bisection on integers that sort like the scores,
and so on with the k best of those until one part is left. Of equals the first ones are taken.

Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", arXiv:1805.02867, section 3.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, misc, valid-type"
# pyright: basic
# Triton's language has no types that a checker could follow.

from __future__ import annotations

from typing import Any, cast

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

from . import KernelError

SPAN = 2048
"""Scores of a part."""
MOST = 128
"""How many of the highest are found at most."""
MERGED = 4096
"""So many are put together by one program at most."""
_LEAST = tl.constexpr(-(2**31))
"""Below every score."""


@triton.jit
def _summed(x, plus, row, n, here, x_row, segment, segments, PLUS: tl.constexpr):
    """Scores at places n of a row, with what is added to the part of the row that they lie in."""
    value = tl.load(x + row * x_row + n, mask=here, other=0.0).to(tl.float32)
    if PLUS:
        value += tl.load(plus + row * segments + n // segment, mask=here, other=0.0)
    return value


@triton.jit
def _extremes(
    x, plus, maxima, totals, vocab, x_row, segment, segments, parts, SPAN: tl.constexpr, PLUS: tl.constexpr
):  # fmt: skip
    """Maximum and sum of exp(x - maximum) of one part of one row."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = part * SPAN + tl.arange(0, SPAN)
    value = _summed(x, plus, row, n, n < vocab, x_row, segment, segments, PLUS)
    value = tl.where(n < vocab, value, float("-inf"))
    best = tl.max(value, 0)
    base = tl.where(best == float("-inf"), 0.0, best)
    tl.store(maxima + row * parts + part, best)
    tl.store(totals + row * parts + part, tl.sum(tl.exp(value - base), 0))


@triton.jit
def _normalised(
    x, plus, out, maxima, totals, vocab, x_row, segment, segments, parts,
    SPAN: tl.constexpr, PLUS: tl.constexpr, PARTS: tl.constexpr, LOG: tl.constexpr,
):  # fmt: skip
    """One part of one row: its probabilities, or their logarithms."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    p = tl.arange(0, PARTS)
    maximum = tl.load(maxima + row * parts + p, mask=p < parts, other=float("-inf"))
    best = tl.max(maximum, 0)
    total = tl.sum(tl.exp(maximum - best) * tl.load(totals + row * parts + p, mask=p < parts, other=0.0), 0)
    n = part * SPAN + tl.arange(0, SPAN)
    value = _summed(x, plus, row, n, n < vocab, x_row, segment, segments, PLUS)
    value = value - (best + tl.log(total)) if LOG else tl.exp(value - best) / total
    tl.store(out + row * vocab + n, value, mask=n < vocab)


@triton.jit
def _at_least(x, least, out, vocab, x_row, SPAN: tl.constexpr):
    """One part of one row, with -inf below the row's threshold."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = part * SPAN + tl.arange(0, SPAN)
    value = tl.load(x + row * x_row + n, mask=n < vocab, other=0.0)
    tl.store(out + row * vocab + n, tl.where(value < tl.load(least + row), float("-inf"), value), mask=n < vocab)


@triton.jit
def _ordered(value):
    """Integers that sort like the numbers, NaN last."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(value != value, 0x7FFFFFFF, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits))


@triton.jit
def _best(
    x, plus, over, places, keys, values, ids, length, x_row, segment, segments, parts, k,
    SPAN: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, PLUS: tl.constexpr, OVER: tl.constexpr,
):  # fmt: skip
    """The k best of one part of one row, in the order of their places.

    Of scores, (x + plus) / over, if FIRST, else of keys `x` with their `places`; as scores and places if LAST.
    """
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = part * SPAN + tl.arange(0, SPAN)
    here = n < length
    if FIRST:
        value = _summed(x, plus, row, n, here, x_row, segment, segments, PLUS)
        if OVER:
            value = tl.div_rn(value, tl.load(over + row * length + n, mask=here, other=1.0))
        key, place = _ordered(value), n
    else:
        key = tl.load(x + row * x_row + n, mask=here, other=0)
        place = tl.load(places + row * x_row + n, mask=here, other=0)
    key = tl.where(here, key, _LEAST)
    # the greatest number that at least k keys reach
    high = tl.max(key, 0).to(tl.int64)
    low = high if k == 1 else tl.min(key, 0).to(tl.int64)
    while low < high:
        middle = (low + high + 1) >> 1
        count = tl.sum((key >= middle.to(tl.int32)).to(tl.int32), 0)
        high = tl.where(count < k, middle - 1, tl.where(count == k, middle, high))
        low = tl.where(count < k, low, middle)
    least = low.to(tl.int32)
    above, equal = (key > least).to(tl.int32), (key == least).to(tl.int32)
    counts = tl.cumsum(above + (equal << 16), 0)
    wanted = k - tl.sum(above, 0)
    equals = counts >> 16
    chosen = (above != 0) | ((equal != 0) & (equals <= wanted))
    at = (row * parts + part) * k + (counts & 0xFFFF) + tl.minimum(equals, wanted) - 1
    if LAST:
        bits = tl.where(key < 0, key ^ 0x7FFFFFFF, key)
        tl.store(values + at, bits.to(tl.float32, bitcast=True), mask=chosen)
        tl.store(ids + at, place.to(tl.int64), mask=chosen)
    else:
        tl.store(keys + at, key, mask=chosen)
        tl.store(ids + at, place, mask=chosen)


@triton.jit
def _descending(values, ids, sorted_values, sorted_ids, k, K: tl.constexpr):
    """The k scores of one row in descending order, equals as they stand."""
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, K)
    value = tl.load(values + row * k + i, mask=i < k, other=0.0)
    key = tl.where(i < k, _ordered(value), _LEAST)
    before = (key[None, :] > key[:, None]) | ((key[None, :] == key[:, None]) & (i[None, :] < i[:, None]))
    at = row * k + tl.sum(before.to(tl.int32), 1)
    tl.store(sorted_values + at, value, mask=i < k)
    tl.store(sorted_ids + at, tl.load(ids + row * k + i, mask=i < k, other=0), mask=i < k)


def softmax(scores: Tensor, log: bool, plus: Tensor | None = None) -> Tensor:
    """Probabilities of each row, or their logarithms: `[rows, vocab]`, float32.

    Args:
        scores: `[rows, vocab]`, floating point; elements of a row side by side.
        plus: `[rows, n]`, float32: what is added to each of n equal parts of a row; None for nothing.

    Raises:
        KernelError: the kernels cannot be built or started here.
    """
    rows, vocab = scores.shape
    parts = triton.cdiv(vocab, SPAN)
    maxima = torch.empty(rows, parts, dtype=torch.float32, device=scores.device)
    totals, out = torch.empty_like(maxima), torch.empty(rows, vocab, dtype=torch.float32, device=scores.device)
    added, *segments = _segments(scores, plus)
    given, constants = (
        (maxima, totals, vocab, scores.stride(0), *segments, parts),
        {"SPAN": SPAN, "PLUS": plus is not None},
    )
    _start(_extremes, (rows, parts), scores, added, *given, **constants)
    _start(_normalised, (rows, parts), scores, added, out, *given, **constants, PARTS=_power(parts), LOG=log)
    return out


def at_least(scores: Tensor, least: Tensor) -> Tensor:
    """`scores` `[rows, vocab]` with -inf where they are less than the row's `least` `[rows, 1]`: a new tensor.

    Raises:
        KernelError: the kernel cannot be built or started here.
    """
    rows, vocab = scores.shape
    out = torch.empty(rows, vocab, dtype=scores.dtype, device=scores.device)
    _start(
        _at_least, (rows, triton.cdiv(vocab, SPAN)), scores, least.contiguous(), out, vocab, scores.stride(0), SPAN=SPAN
    )  # fmt: skip
    return out


def highest(
    scores: Tensor, k: int, plus: Tensor | None = None, over: Tensor | None = None, in_place: bool = False
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The k highest of (scores + plus) / over in each row, of equals the first ones, and their places.

    Args:
        scores: `[rows, length]`, floating point; elements of a row side by side, fewer than 2^31. NaN counts most.
        k: from 1 to `MOST`, and not more than there are.
        plus: as of `softmax`.
        over: `[rows, length]`, float32, contiguous; None for 1.
        in_place: in ascending order of places instead of descending order of scores.

    Returns:
        `[rows, k]`, float32, and `[rows, k]`, long.

    Raises:
        KernelError: the kernels cannot be built or started here.
    """
    rows, length = scores.shape
    values = torch.empty(rows, k, dtype=torch.float32, device=scores.device)
    ids = torch.empty(rows, k, dtype=torch.long, device=scores.device)
    added, *segments = _segments(scores, plus)
    source, places, stride, span, first = scores, scores, scores.stride(0), SPAN, True
    while True:
        parts = triton.cdiv(length, span)
        last = parts == 1
        keys = torch.empty(2, rows, 0 if last else parts * k, dtype=torch.int32, device=scores.device)
        _start(
            _best, (rows, parts), source, added, scores if over is None else over, places, keys[0], values,
            ids if last else keys[1], length, stride, *segments, parts, k,
            SPAN=span, FIRST=first, LAST=last, PLUS=first and plus is not None, OVER=first and over is not None,
        )  # fmt: skip
        if last:
            break
        (source, places), length, stride, first = keys, parts * k, parts * k, False
        span = min(MERGED, max(_power(length), 128))
    if in_place or k == 1:
        return values, ids
    found = torch.empty_like(values), torch.empty_like(ids)
    _start(_descending, (rows, 1), values, ids, *found, k, K=_power(k))
    return found


def _segments(scores: Tensor, plus: Tensor | None) -> tuple[Tensor, int, int]:
    """What is added to scores, or any tensor, the length of the parts that it is added to, and their number."""
    return (scores, 1, 1) if plus is None else (plus.contiguous(), scores.shape[1] // plus.shape[1], plus.shape[1])


def _start(kernel: Any, grid: tuple[int, int], *arguments: Any, **constants: Any) -> None:
    try:
        cast(Any, kernel)[grid](*arguments, **constants, num_warps=4)
    except Exception as error:  # no compiler on this machine, or too little shared memory on this device
        raise KernelError(f"{type(error).__name__}: {error}") from error


def _power(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
