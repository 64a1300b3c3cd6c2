"""Softmax and selection of few rows as long as a vocabulary: each row is read by many programs at once.

A reduction of torch's gives a row to one block of threads, which leaves most of a device idle where rows are few.
Here a row is cut into parts. For softmax each part gives its maximum m and sum l of exp(x - m), and

    log p(x) = x - (m + log l),    m = max_s m_s,    l = sum_s exp(m_s - m) l_s

puts them together. To select, scores become integers that sort like them. The k best lie in the k blocks of a row whose
greatest scores are best, so every block gives its greatest, the k best blocks are found by bisection, and then, in the
same way, the k best of what lies in them. Of equals the first ones are taken.

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

from .build import MOST, KernelError

SPAN = 2048
"""Scores of a part."""
MERGED = 8192
"""One program selects from so many at most."""
LANES = tl.constexpr(MOST)
"""What is selected from is read in so many lanes, since as many are found at most."""
_LEAST = tl.constexpr(-(2**31))
"""Below every score."""


@triton.jit
def _summed(x, plus, row, part, n, here, x_row, segment, segments, SPAN: tl.constexpr, PLUS: tl.constexpr):
    """Scores at places n of a part of a row, with what is added in the one or two segments that the part lies in."""
    value = tl.load(x + row * x_row + n, mask=here, other=0.0).to(tl.float32)
    if PLUS:
        first = part * SPAN // segment
        own = tl.load(plus + row * segments + first)
        following = tl.load(plus + row * segments + tl.minimum(first + 1, segments - 1))
        value += tl.where(n < (first + 1) * segment, own, following)
    return value


@triton.jit
def _extremes(
    x, plus, maxima, totals, vocab, x_row, segment, segments, parts, SPAN: tl.constexpr, PLUS: tl.constexpr
):  # fmt: skip
    """Maximum and sum of exp(x - maximum) of one part of one row."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = part * SPAN + tl.arange(0, SPAN)
    value = _summed(x, plus, row, part, n, n < vocab, x_row, segment, segments, SPAN, PLUS)
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
    value = _summed(x, plus, row, part, n, n < vocab, x_row, segment, segments, SPAN, PLUS)
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
def _read(
    x, plus, over, row, part, n, here, length, x_row, segment, segments,
    SPAN: tl.constexpr, PLUS: tl.constexpr, OVER: tl.constexpr,
):  # fmt: skip
    """(x + plus) / over at places n of a row, as integers."""
    value = _summed(x, plus, row, part, n, here, x_row, segment, segments, SPAN, PLUS)
    if OVER:
        value = tl.div_rn(value, tl.load(over + row * length + n, mask=here, other=1.0))
    return tl.where(here, _ordered(value), _LEAST)


@triton.jit
def _greatest(x, keys, places, values, ids, length, x_row, parts, SPAN: tl.constexpr, FIRST: tl.constexpr):
    """The best of one part of one row of scores, if FIRST, or of a row of keys with their places, as score and place."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = part * SPAN + tl.arange(0, SPAN)
    here = n < length
    if FIRST:
        key = _ordered(tl.load(x + row * x_row + n, mask=here, other=0.0).to(tl.float32))
        best = tl.max(tl.where(here, key, _LEAST), 0)
        tl.store(keys + row * parts + part, best)
        tl.store(places + row * parts + part, tl.min(tl.where(here & (key == best), n, 0x7FFFFFFF), 0))
    else:
        key = tl.load(keys + row * length + n, mask=here, other=_LEAST)
        best = tl.max(key, 0)
        first = tl.min(tl.where(here & (key == best), n, 0x7FFFFFFF), 0)
        tl.store(values + row, tl.where(best < 0, best ^ 0x7FFFFFFF, best).to(tl.float32, bitcast=True))
        tl.store(ids + row, tl.load(places + row * length + first).to(tl.int64))


@triton.jit
def _maxima(
    x, plus, over, keys, length, x_row, segment, segments, blocks,
    SPAN: tl.constexpr, BLOCK: tl.constexpr, PLUS: tl.constexpr, OVER: tl.constexpr,
):  # fmt: skip
    """The best key of each block of one part of one row."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    block = tl.arange(0, SPAN // BLOCK)
    n = part * SPAN + block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    key = _read(x, plus, over, row, part, n, n < length, length, x_row, segment, segments, SPAN, PLUS, OVER)
    block += part * (SPAN // BLOCK)
    tl.store(keys + row * blocks + block, tl.max(key, 1), mask=block < blocks)


@triton.jit
def _narrowed(count, above, below, count_, above_, below_):
    return count + count_, tl.minimum(above, above_), tl.maximum(below, below_)


@triton.jit
def _least_of_best(key, k, SPAN: tl.constexpr):
    """The k-th greatest of SPAN keys."""
    # as many keys as there are lanes reach the least of the lanes' greatest
    reached = tl.max(tl.reshape(key, (SPAN // LANES, LANES)), 0)
    low, high = tl.min(reached, 0).to(tl.int64), tl.max(reached, 0).to(tl.int64)
    middle = tl.minimum(low + 1, high)  # where most is masked, the least that it can be is what it is
    while low < high:
        reaches = key >= middle.to(tl.int32)
        above, below = tl.where(reaches, key, 0x7FFFFFFF), tl.where(reaches, _LEAST, key)
        count, next_above, next_below = tl.reduce((reaches.to(tl.int32), above, below), 0, _narrowed)
        low = tl.where(count < k, low, next_above.to(tl.int64))
        high = tl.where(count < k, next_below.to(tl.int64), tl.where(count == k, low, high))
        middle = (low + high + 1) >> 1
    return low.to(tl.int32)


@triton.jit
def _best(keys, places, best_keys, best_places, length, parts, k, SPAN: tl.constexpr, PLACED: tl.constexpr):
    """The k best of one part of one row of keys, in the order of their places, which are their own unless PLACED."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = part * SPAN + tl.arange(0, SPAN)
    here = n < length
    key = tl.load(keys + row * length + n, mask=here, other=_LEAST)
    least = _least_of_best(key, k, SPAN)
    above, equal = (key > least).to(tl.int32), (key == least).to(tl.int32)
    counts = tl.cumsum(above + (equal << 16), 0)
    wanted, equals = k - tl.sum(above, 0), counts >> 16
    chosen = (above != 0) | ((equal != 0) & (equals <= wanted))
    at = (row * parts + part) * k + (counts & 0xFFFF) + tl.minimum(equals, wanted) - 1
    place = tl.load(places + row * length + n, mask=here & chosen, other=0) if PLACED else n
    tl.store(best_places + at, place, mask=chosen)
    tl.store(best_keys + at, key, mask=chosen)


@triton.jit
def _best_within(
    x, plus, over, blocks, values, ids, length, x_row, segment, segments, k,
    SPAN: tl.constexpr, BLOCK: tl.constexpr, PLUS: tl.constexpr, OVER: tl.constexpr,
):  # fmt: skip
    """The k best scores of k blocks of one row: by place, those that equal the least one behind the others."""
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, SPAN)
    block = tl.load(blocks + row * k + i // BLOCK, mask=i < k * BLOCK, other=0)
    n = block * BLOCK + i % BLOCK
    here = (i < k * BLOCK) & (n < length)
    key = _read(x, plus, over, row, block, n, here, length, x_row, segment, segments, BLOCK, PLUS, OVER)
    least = _least_of_best(key, k, SPAN)
    above, equal = (key > least).to(tl.int32), (key == least).to(tl.int32)
    counts = tl.cumsum(above + (equal << 16), 0)
    greater, equals = tl.sum(above, 0), counts >> 16
    chosen = (above != 0) | ((equal != 0) & (equals <= k - greater))
    at = row * k + tl.where(above != 0, counts & 0xFFFF, greater + equals) - 1
    bits = tl.where(key < 0, key ^ 0x7FFFFFFF, key)
    tl.store(values + at, bits.to(tl.float32, bitcast=True), mask=chosen)
    tl.store(ids + at, n.to(tl.int64), mask=chosen)


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
    scores, added, *segments = _segments(scores, plus)
    given, constants = (
        (maxima, totals, vocab, scores.stride(0), *segments, parts),
        {"SPAN": SPAN, "PLUS": added is not scores},
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
    scores: Tensor, k: int, plus: Tensor | None = None, over: Tensor | None = None, unsorted: bool = False
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The k highest of (scores + plus) / over in each row, of equals the first ones, and their places.

    Args:
        scores: `[rows, length]`, floating point; elements of a row side by side, fewer than 2^31. NaN counts most.
        k: from 1 to `genmode.cuda.kernels.build.MOST`, and not more than there are.
        plus: as of `softmax`.
        over: `[rows, length]`, float32, contiguous; None for 1.
        unsorted: as torch.topk has them before it sorts them: by place, those that equal the least behind the others.

    Returns:
        `[rows, k]`, float32, and `[rows, k]`, long.

    Raises:
        KernelError: the kernels cannot be built or started here.
    """
    rows, length = scores.shape
    device = scores.device
    values = torch.empty(rows, k, dtype=torch.float32, device=device)
    ids = torch.empty(rows, k, dtype=torch.long, device=device)
    if k == 1 and plus is None and over is None:
        parts = triton.cdiv(length, SPAN)
        keys, places = torch.empty(2, rows, parts, dtype=torch.int32, device=device)
        greatest = scores, keys, places, values, ids
        _start(_greatest, (rows, parts), *greatest, length, scores.stride(0), parts, SPAN=SPAN, FIRST=True)
        _start(_greatest, (rows, 1), *greatest, parts, 0, 1, SPAN=_power(parts), FIRST=False)
        return values, ids
    scores, added, *segments = _segments(scores, plus)
    given = scores, added, scores if over is None else over
    constants = {"PLUS": added is not scores, "OVER": over is not None}
    block = 256 if k <= 16 else 64 if k <= 64 else 32  # about as many blocks as there are scores in the best k
    found = triton.cdiv(length, block)
    keys = places = torch.empty(rows, found, dtype=torch.int32, device=device)
    _start(
        _maxima, (rows, triton.cdiv(length, SPAN)), *given, keys, length, scores.stride(0), *segments, found,
        SPAN=SPAN, BLOCK=block, **constants,
    )  # fmt: skip
    parts = 0
    while parts != 1:
        span, placed = min(MERGED, max(_power(found), 128)), parts > 0
        parts = triton.cdiv(found, span)
        best = torch.empty(2, rows, parts * k, dtype=torch.int32, device=device)
        _start(_best, (rows, parts), keys, places, *best, found, parts, k, SPAN=span, PLACED=placed)
        (keys, places), found = best, parts * k
    span = max(_power(k * block), 128)
    _start(
        _best_within, (rows, 1), *given, places, values, ids, length, scores.stride(0), *segments, k,
        SPAN=span, BLOCK=block, **constants,
    )  # fmt: skip
    if unsorted or k == 1:
        return values, ids
    ordered = torch.empty_like(values), torch.empty_like(ids)
    _start(_descending, (rows, 1), values, ids, *ordered, k, K=_power(k))
    return ordered


def _segments(scores: Tensor, plus: Tensor | None) -> tuple[Tensor, Tensor, int, int]:
    """Scores and what is added to them, or scores again for nothing; the length of the segments, and their number.

    A kernel adds it where a part lies in two segments at most.
    """
    if plus is None:
        return scores, scores, 1, 1
    segment, segments = scores.shape[1] // plus.shape[1], plus.shape[1]
    if segment < SPAN:
        sums = scores.unflatten(1, (segments, segment)) + plus[:, :, None]
        return _segments(sums.flatten(1), None)
    return scores, plus.contiguous(), segment, segments


def _start(kernel: Any, grid: tuple[int, int], *arguments: Any, **constants: Any) -> None:
    try:
        cast(Any, kernel)[grid](*arguments, **constants, num_warps=max(4, constants.get("SPAN", 0) // 512))
    except Exception as error:  # no compiler on this machine, or too little shared memory on this device
        raise KernelError(f"{type(error).__name__}: {error}") from error


def _power(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
