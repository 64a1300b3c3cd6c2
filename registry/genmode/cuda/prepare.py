"""Kernels that a call is sure to want, built in threads of their own while its prompt is run."""

from __future__ import annotations

from typing import Any

import torch

from ..hf.attention import attention_name
from ..sampling.candidates import SPARE
from ..sampling.selection import first_best, highest, log_softmax, topk
from .kernels import build as kernels
from .kernels.build import PARENT_ROWS


def build_ahead(model: Any, config: Any, rows: int, limit: int) -> None:
    """Begin with those of the first captured forward and of what follows it, as far as model and config tell.

    Args:
        config: the generation config.
        rows, limit: shape of that forward, which sees `limit` keys of `rows` rows.
    """
    text = model.config.get_text_config(decoder=True)
    beams, device = config.num_beams or 1, model.device
    heads = getattr(text, "num_attention_heads", None)
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    half = model.dtype in (torch.bfloat16, torch.float16)
    if half and attention_name(model) == "sdpa" and isinstance(heads, int) and isinstance(kv_heads, int):
        width = getattr(text, "head_dim", None) or getattr(text, "hidden_size", 0) // heads

        def attend() -> None:
            query = torch.zeros(rows, 1, heads, width, dtype=model.dtype).transpose(1, 2)
            keys = torch.zeros(rows, kv_heads, limit, width, dtype=model.dtype)
            mask = torch.ones(rows, 1, 1, limit, dtype=PARENT_ROWS if beams > 1 else torch.bool)
            kernels.load("split_attention").attend(query, keys, keys, mask, 1.0)

        kernels.build_ahead("attention", (device, model.dtype, heads, kv_heads, width, beams > 1), device, attend)

    vocab, top_k = text.vocab_size, config.top_k or 0
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    keep = max(2, 1 + len(ends)) * beams

    def select() -> None:
        logits = torch.zeros(rows, vocab, dtype=model.dtype)
        first_best(logits)  # also for telling whether logits are numbers
        if beams > 1:
            topk(logits.float().view(rows // beams, -1), keep, torch.zeros(rows // beams, beams))
        elif config.do_sample and top_k:
            highest(logits.float(), top_k + SPARE)

    kernels.build_ahead("select", (device, model.dtype, rows, vocab, keep, config.do_sample, top_k), device, select)
    if beams > 1:
        kernels.build_ahead(
            "softmax", (device, model.dtype, rows, vocab), device,
            lambda: log_softmax(torch.zeros(rows, vocab, dtype=model.dtype)),
        )  # fmt: skip
