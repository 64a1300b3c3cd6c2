"""Rows of what a model takes and returns: compared, picked, and joined again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from ..hf import caches


def alike(together: Tensor, apart: Tensor) -> bool:
    """Whether two logits `[rows, tokens, vocab]` are the same but for rounding: nowhere further apart than a fiftieth of
    their standard deviation, in half precision a half of it.
    """
    most = 0.02 if apart.dtype == torch.float32 else 0.5
    together, apart = together.float(), apart.float()
    return bool((together - apart).abs().max() <= most * apart.std(-1).mean())


def last_hidden(outputs: Any) -> Tensor | None:
    """The last layer's hidden states `[rows, tokens, size]` of a forward; None if it gave none."""
    for name in ("decoder_hidden_states", "hidden_states"):
        states = outputs.get(name)
        if states is not None:
            found: Tensor = states[-1]
            return found
    return None


# Functions of the module's and no closures: one that calls itself is a cycle, and would keep the tensors that it saw.


def all_picked(values: Mapping[str, Any], rows: Tensor, size: int) -> dict[str, Any]:
    """What a forward of `size` rows takes or returns, with row i being `rows[i]`; caches are left as they are."""
    return {k: v if k in caches.CACHE_NAMES else _picked(k, v, rows, size) for k, v in values.items()}


def _picked(key: str, value: Any, rows: Tensor, size: int) -> Any:
    if isinstance(value, Tensor):
        axis = 1 if key == "position_ids" and value.ndim == 3 else 0
        if value.ndim > axis and value.shape[axis] == size:
            return value.index_select(axis, rows.to(value.device))
    elif isinstance(value, dict):  # encoder outputs
        return type(value)({k: _picked(k, v, rows, size) for k, v in value.items()})
    elif isinstance(value, tuple):  # hidden states, attentions
        return tuple(_picked(key, one, rows, size) for one in value)
    return value


def join_outputs(parts: list[Any]) -> Any:
    """Hidden states and attentions of rows that were run alone, as if together; what a row lacks is zero."""
    wanted = [key for key in parts[0] if key.endswith(("hidden_states", "attentions"))]
    return ModelOutput({key: _joined([part[key] for part in parts]) for key in wanted})


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(_joined(list(layer)) for layer in zip(*values, strict=True))
    if not isinstance(values[0], Tensor):
        return None
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    joined = values[0].new_zeros((len(values), *shape))
    for row, value in zip(joined, values, strict=True):
        row[tuple(slice(size) for size in value.shape[1:])] = value[0]
    return joined


def pick_outputs(outputs: Any, rows: Tensor) -> Any:
    """What the model returned, with row i being `rows[i]`; the cache is left as it is."""
    return type(outputs)(all_picked(outputs, rows, outputs.logits.shape[0]))
