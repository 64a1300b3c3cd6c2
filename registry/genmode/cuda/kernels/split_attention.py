"""Attention of a few new tokens to a long cache, on CUDA: the cache is read by many programs at once.

With one query a head, kernels made for prompts give each head to one program, which then walks along all keys
alone. Here the keys are cut into parts, each part gives its softmax numerator, maximum m and sum l, and

    out = sum_s exp(m_s - m) acc_s / sum_s exp(m_s - m) l_s,    m = max_s m_s

puts them together. All query heads of one key head are done by one program, so that keys are read once.

A mask of numbers rather than truths has parent rows: it says in which row's slot a key lies, so that beams which part
from one another need not copy what they share.

Source: Dao et al., "Flash-Decoding for long-context inference", 2023; Dao, FlashAttention-2, arXiv:2307.08691,
section 3.1, for the online softmax. A query that may see nothing gives zeros.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, misc"
# pyright: basic
# Triton's language has no types that a checker could follow.

from __future__ import annotations

from typing import Any, cast

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

from .build import PARENT_ROWS, KernelError

BLOCK = 64
"""Keys of one step of a program."""
PROGRAMS = 1024
"""About so many programs are started; parts get longer beyond that."""
PARTS = 64
"""Parts at most, so that one program can put them together."""


@triton.jit
def _partial(
    q, k, v, mask, sums, maxima, totals, scale, limit, span,
    q_row, q_head, q_token, k_row, k_head, k_slot, v_row, v_head, v_slot, mask_row, mask_token,
    kv_heads, parts, GROUPS: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    QUERIES: tl.constexpr, BLOCK: tl.constexpr, PARENTS: tl.constexpr,
):  # fmt: skip
    """One part of the keys of one key head of one row."""
    pair, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = pair // kv_heads, pair % kv_heads
    m, d = tl.arange(0, QUERIES), tl.arange(0, WIDE)
    real, inside = m < GROUPS * COUNT, d < WIDTH
    token = m % COUNT
    at = q + row * q_row + (head * GROUPS + m // COUNT)[:, None] * q_head + token[:, None] * q_token + d[None, :]
    query = tl.load(at, mask=real[:, None] & inside[None, :], other=0.0)
    best = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, WIDE], tl.float32)
    for first in range(part * span, tl.minimum(part * span + span, limit), BLOCK):
        n = first + tl.arange(0, BLOCK)
        there = n < limit
        home = row + tl.zeros([BLOCK], tl.int64)
        pick = there[:, None] & inside[None, :]
        if PARENTS:  # the last token sees all that any of them sees
            last = mask + row * mask_row + (COUNT - 1) * mask_token
            home = tl.load(last + n, mask=there, other=0).to(tl.int64) - 1
            pick = pick & (home >= 0)[:, None]
        keys = tl.load(
            k + home[:, None] * k_row + head * k_head + n[:, None] * k_slot + d[None, :], mask=pick, other=0.0
        )  # fmt: skip
        values = tl.load(
            v + home[:, None] * v_row + head * v_head + n[:, None] * v_slot + d[None, :], mask=pick, other=0.0
        )  # fmt: skip
        seen = tl.load(
            mask + row * mask_row + token[:, None] * mask_token + n[None, :],
            mask=real[:, None] & there[None, :], other=0,
        )  # fmt: skip
        scores = tl.where(seen != 0, tl.dot(query, tl.trans(keys)) * scale, float("-inf"))
        new = tl.maximum(best, tl.max(scores, 1))
        base = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp(scores - base[:, None])
        fade = tl.exp(best - base)
        total = total * fade + tl.sum(weights, 1)
        acc = acc * fade[:, None] + tl.dot(weights.to(values.dtype), values)
        best = new
    slot = (pair * parts + part) * (GROUPS * COUNT) + m
    tl.store(sums + slot[:, None] * WIDTH + d[None, :], acc, mask=real[:, None] & inside[None, :])
    tl.store(maxima + slot, best, mask=real)
    tl.store(totals + slot, total, mask=real)


@triton.jit
def _together(
    sums, maxima, totals, out, kv_heads, parts, out_row, out_token, out_head,
    GROUPS: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One query of one head: what its parts give together."""
    pair, m = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = pair // kv_heads, pair % kv_heads
    part, d = tl.arange(0, PARTS), tl.arange(0, WIDE)
    slot = (pair * parts + part) * (GROUPS * COUNT) + m
    here, inside = part < parts, d < WIDTH
    maximum = tl.load(maxima + slot, mask=here, other=float("-inf"))
    best = tl.max(maximum, 0)
    weights = tl.exp(maximum - tl.where(best == float("-inf"), 0.0, best))
    total = tl.sum(weights * tl.load(totals + slot, mask=here, other=0.0), 0)
    acc = tl.load(sums + slot[:, None] * WIDTH + d[None, :], mask=here[:, None] & inside[None, :], other=0.0)
    result = tl.sum(acc * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    at = out + row * out_row + (m % COUNT) * out_token + (head * GROUPS + m // COUNT) * out_head + d
    tl.store(at, result.to(out.dtype.element_ty), mask=inside)


def fits(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether `attend` may be called: half precision on CUDA, at most 64 queries a key head, 256 numbers a head."""
    return (
        mask is not None and mask.dtype in (torch.bool, PARENT_ROWS) and mask.shape[1] == 1 and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16) and key.dtype == query.dtype == value.dtype
        and query.shape[1] // key.shape[1] * query.shape[2] <= 64
        and query.shape[3] == value.shape[3] <= 256
        and query.stride(3) == key.stride(3) == value.stride(3) == mask.stride(3) == 1
    )  # fmt: skip


@torch.library.custom_op("genmode::attend", mutates_args=(), device_types="cuda")
def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Softmax attention; an operator of its own, so that torch.compile leaves it as it is.

    Args:
        query: `[rows, heads, q, width]`, float16 or bfloat16.
        key, value: `[rows, kv heads, length, width]`.
        mask: `[rows or 1, 1, q, length]`, bool: true where a query sees a key. Or int16: one more than the row in
            whose slot the key lies, 0 where it is hidden; the last query then sees all that any of its row sees.

    Returns:
        `[rows, q, heads, width]`.

    Raises:
        KernelError: the kernels cannot be built or started here.
    """
    rows, heads, count, width = query.shape
    kv_heads, limit = key.shape[1], key.shape[2]
    groups, pairs = heads // kv_heads, rows * key.shape[1]
    span = BLOCK * -(-limit // (BLOCK * max(1, min(PARTS, PROGRAMS // pairs))))
    parts = -(-limit // span)
    queries, wide = max(16, _power(groups * count)), max(16, _power(width))
    out = torch.empty(rows, count, heads, width, dtype=query.dtype, device=query.device)
    sums = torch.empty(pairs, parts, groups * count, width, dtype=torch.float32, device=query.device)
    maxima = torch.empty(pairs, parts, groups * count, dtype=torch.float32, device=query.device)
    totals = torch.empty_like(maxima)
    constants: dict[str, Any] = {"GROUPS": groups, "COUNT": count, "WIDTH": width, "WIDE": wide}
    try:
        cast(Any, _partial)[(pairs, parts)](
            query, key, value, mask, sums, maxima, totals, scale, limit, span,
            query.stride(0), query.stride(1), query.stride(2), key.stride(0), key.stride(1), key.stride(2),
            value.stride(0), value.stride(1), value.stride(2),
            0 if mask.shape[0] == 1 else mask.stride(0), mask.stride(2),
            kv_heads, parts, **constants, QUERIES=queries, BLOCK=BLOCK, PARENTS=mask.dtype == PARENT_ROWS, num_warps=4,
        )  # fmt: skip
        cast(Any, _together)[(pairs, groups * count)](
            sums, maxima, totals, out, kv_heads, parts, out.stride(0), out.stride(1), out.stride(2),
            **constants, PARTS=_power(parts), num_warps=4,
        )  # fmt: skip
    except Exception as error:  # no compiler on this machine, or too little shared memory on this device
        raise KernelError(f"{type(error).__name__}: {error}") from error
    return out


@attend.register_fake
def _shape(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    rows, heads, count, width = query.shape
    return query.new_empty(rows, count, heads, width)


def _power(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
