"""Attention under a mask without copying keys for grouped queries.

Scaled dot-product attention takes either a mask or grouped heads in its fast kernels, so transformers repeats
keys and values for every query head as soon as there is a mask. The queries of one group see the same keys:
taken as further query positions they need no copy,

    [rows, heads, q, width] -> [rows, kv heads, heads / kv heads * q, width].

Used while a forward is captured, by the name that transformers looks attention up under. Where Triton works,
`genmode.cuda.kernels.split_attention` reads a long cache in parts, and a row's keys where they lie, be it in another row's slots.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..hf.attention import PACKED, SPLIT, attention_name, register, replaced
from .kernels import build as kernels
from .kernels.build import PARENT_ROWS


def packed_sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers' scaled dot-product attention; grouped queries under one mask are packed.

    Args:
        query: `[rows, heads, q, width]`.
        key, value: `[rows, kv heads, length, width]`.
        attention_mask: `[rows, 1, q, length]`, bool or parent rows (`PARENT_ROWS`), or None.

    Returns:
        `[rows, q, heads, width]`, and None for the attention weights.
    """
    if attention_mask is not None and attention_mask.dtype == PARENT_ROWS:
        key, value = materialized(key, attention_mask), materialized(value, attention_mask)
        attention_mask = attention_mask > 0
    rows, heads, count, width = query.shape
    groups = heads // key.shape[1]
    if attention_mask is None or groups == 1 or attention_mask.shape[1] != 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    packed = query.reshape(rows, key.shape[1], groups * count, width)
    mask = attention_mask.repeat(1, 1, groups, 1) if count > 1 else attention_mask
    out = torch.nn.functional.scaled_dot_product_attention(packed, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(rows, heads, count, -1).transpose(1, 2).contiguous(), None


def split_sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The same, by kernels that read a long cache in parts where they fit; arguments as of `packed_sdpa`."""
    split = kernels.load("split_attention")
    if split is not None and "position_bias" not in kwargs and split.fits(query, key, value, attention_mask):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return split.attend(query, key, value, attention_mask, scale), None
    return packed_sdpa(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


def materialized(states: Tensor, parents: Tensor) -> Tensor:
    """Keys or values `[rows, kv heads, length, width]`, each row's in slots of its own: a copy."""
    sources = (parents[:, 0, -1].long() - 1).clamp(min=0)  # [rows, length]
    return states.gather(0, sources[:, None, :, None].expand(states.shape))


def reads_parent_rows(model: Any, keys: Tensor) -> bool:
    """Whether captured forwards of the model can read keys like these, `[rows, kv heads, *, width]`, by parent rows."""
    return (
        keys.dtype in (torch.bfloat16, torch.float16) and keys.shape[3] <= 256 and keys.shape[0] < 2**15
        and attention_name(model) == "sdpa" and kernels.load("split_attention") is not None
    )  # fmt: skip


def packed(model: Any) -> AbstractContextManager[None]:
    """Have the model's layers use `split_sdpa`, or `packed_sdpa` without Triton, for scaled dot-product attention."""
    kernels.wait("attention")
    return replaced(model, PACKED if kernels.load("split_attention") is None else SPLIT)


register(PACKED, packed_sdpa)
register(SPLIT, split_sdpa)
