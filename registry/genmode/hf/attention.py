"""How a model computes attention, and putting another implementation in its place while a forward is captured."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

PACKED, SPLIT = "genmode_packed", "genmode_split"
"""Names of what stands in for "sdpa" while a forward is captured, see `genmode.cuda.packed_attention`."""


def attention_name(model: Any) -> str:
    """How the model computes attention, whether or not another thread captures it just now."""
    name = str(model.config._attn_implementation)
    return "sdpa" if name in (PACKED, SPLIT) else name


def register(name: str, function: Callable[..., Any]) -> None:
    """Let models compute attention by a function, with the masks of scaled dot-product attention."""
    AttentionInterface.register(name, function)
    # Another thread may prepare a mask while this one captures.
    AttentionMaskInterface.register(name, sdpa_mask)


@contextmanager
def replaced(model: Any, name: str) -> Generator[None, None, None]:
    """Have the model's layers use the implementation of that name for scaled dot-product attention."""
    configs = [
        config for config in {id(c): c for c in _configs(model)}.values() if config._attn_implementation == "sdpa"
    ]
    for config in configs:
        config._attn_implementation_internal = name
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
