"""Attention under a mask without copying keys for grouped queries.

Scaled dot-product attention takes either a mask or grouped heads in its fast kernels, so transformers repeats
keys and values for every query head as soon as there is a mask. The queries of one group see the same keys:
taken as further query positions they need no copy,

    [rows, heads, q, width] -> [rows, kv heads, heads / kv heads * q, width].

Used while a forward is captured, by the name that transformers looks attention up under.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..seam import PACKED as NAME


def packed_sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers' scaled dot-product attention; grouped queries under one mask are packed.

    Args:
        query: `[rows, heads, q, width]`.
        key, value: `[rows, kv heads, length, width]`.
        attention_mask: `[rows, 1, q, length]`, bool, or None.

    Returns:
        `[rows, q, heads, width]`, and None for the attention weights.
    """
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


@contextmanager
def packed_attention(model: Any) -> Generator[None, None, None]:
    """Have the model's layers use `packed_sdpa`, where they use scaled dot-product attention."""
    configs = [
        config for config in {id(c): c for c in _configs(model)}.values() if config._attn_implementation == "sdpa"
    ]
    for config in configs:
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation_internal = "sdpa"


def _configs(model: Any) -> Iterator[Any]:
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            yield config


AttentionInterface.register(NAME, packed_sdpa)
# Another thread may prepare a mask while this one captures.
AttentionMaskInterface.register(NAME, sdpa_mask)
