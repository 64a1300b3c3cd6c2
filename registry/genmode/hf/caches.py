"""transformers' caches: which can be reordered, rewound and split, and which models can do without them.

Support for a further kind of cache begins here.
"""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, cache_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..errors import UnsupportedError
from .attention import attention_name

CACHE_NAMES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
_EMPTY: tuple[type, ...] = tuple(filter(None, [getattr(cache_utils, "DummyLayer", None)]))
"""Layers that hold nothing, since they read the keys of others; newer releases have them."""


def reorder_cache(model: Any, cache: Any, rows: Tensor) -> Any:
    """The cache with row i continuing `rows[i]`; the model's own way where it has one."""
    if hasattr(model, "_reorder_cache"):
        return model._reorder_cache(cache, rows)
    if not hasattr(cache, "reorder_cache"):
        raise UnsupportedError(
            f"the state of {type(model).__name__} ({type(cache).__name__}) cannot be reordered, which beams need; use "
            "'greedy_search' or 'sample'"
        )
    cache.reorder_cache(rows)
    return cache


def check_implementation(name: Any) -> None:
    """Refuse a `cache_implementation` that this machine cannot hold.

    Raises:
        UnsupportedError: it moves the cache between a device and the host, and there is no device.
    """
    if isinstance(name, str) and "offloaded" in name and not torch.accelerator.is_available():
        raise UnsupportedError(
            f"cache_implementation={name!r} moves the cache between an accelerator and the host, and this machine has no "
            "accelerator; leave it out"
        )


def rewindable_cache(model: Any, cache: Any) -> Any:
    """A cache like this one that can forget its last tokens; None if the model has no such cache.

    Sliding-window layers drop what leaves the window, so a fresh cache gets layers that keep everything;
    the model masks by the window all the same, or has no such cache. Recurrent states cannot go back.
    """
    if getattr(model, "_is_stateful", False) or not isinstance(cache, Cache):
        return None
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if not all(hasattr(layer, "crop") and hasattr(layer, "keys") for layer in own.layers):
        return None
    if type(own) is DynamicCache and any(getattr(layer, "is_sliding", False) for layer in own.layers):
        if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer, *_EMPTY) for layer in own.layers):
            return None  # some hold a state beside keys and values, which a fresh cache would lack
        if own.get_seq_length() or isinstance(cache, EncoderDecoderCache) or not _masks_by_window(model):
            return None
        return DynamicCache()
    return cache


def _masks_by_window(model: Any) -> bool:
    """Whether a model hides what has left its window; one that does not, as Moshi, counts on a cache that drops it."""
    modules = {type(one).__module__ for one in model.modules()}
    return any(hasattr(sys.modules.get(name), "create_sliding_window_causal_mask") for name in modules)


def repeated_cache(cache: Any, rows: int) -> Any:
    """A cache of `rows` rows for a filled one of fewer, each of which is repeated; the cache itself where it fits.

    It is another cache: the one that is given stays as it is.

    Raises:
        UnsupportedError: the cache cannot be repeated, or `rows` is no multiple of its rows.
    """
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    layers = [one for one in getattr(own, "layers", ()) if getattr(one, "is_initialized", False)]
    held = next((one.keys.shape[0] for one in layers if isinstance(getattr(one, "keys", None), Tensor)), rows)
    if held == rows or not cache.get_seq_length():
        return cache
    if rows % held or not hasattr(cache, "batch_repeat_interleave"):
        raise UnsupportedError(
            f"past_key_values={type(cache).__name__} holds {held} rows, and {rows} are decoded; give one of {rows} rows "
            "(cache.batch_repeat_interleave), or leave out num_beams and num_return_sequences"
        )
    repeated = copy.deepcopy(cache)
    repeated.batch_repeat_interleave(rows // held)
    return repeated


def rewind_cache(cache: Any, tokens: int) -> None:
    """Drop the last `tokens` tokens of every row. (transformers read a negative number so in all versions.)"""
    if tokens:
        cache.crop(-tokens)


def split_cache(cache: Any, row: int) -> Any:
    """A cache of one row, sharing no storage that is written."""
    one = copy.copy(cache)
    if isinstance(cache, EncoderDecoderCache):
        one.self_attention_cache = split_cache(cache.self_attention_cache, row)
        one.cross_attention_cache = split_cache(cache.cross_attention_cache, row)
        one.is_updated = dict(cache.is_updated)
        return one
    one.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in one.layers:
        if isinstance(getattr(layer, "keys", None), Tensor):
            layer.reorder_cache(torch.tensor([row], device=layer.keys.device))  # its own way: some hold more than keys
    return one


def selected_keys(model: Any, cache: Any) -> int | None:
    """Of how many tokens the keys are that each token selects and attends to; None if it attends to all it may see."""
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if not any(hasattr(layer, "update_indexer") for layer in getattr(own, "layers", ())):
        return None
    return int(getattr(model.config.get_text_config(decoder=True), "index_topk", 0))


def static_cache_obstacle(model: Any, cache: Any, max_length: int) -> str | None:
    """Why the model cannot decode on rows of their own lengths; None if it can.

    Such a model reads positions from `position_ids`, visibility from a 4D mask and lengths from nowhere
    else, which is what transformers asks of a model that it compiles in full (`_can_compile_fullgraph`).
    """
    config = model.config.get_text_config(decoder=True)
    if model.config.is_encoder_decoder:
        return "encoder-decoder models keep a second cache"
    if cache is None:
        return f"{type(model).__name__} keeps no cache of keys and values"
    if type(cache) is not DynamicCache:
        return f"the call brings a cache of its own ({type(cache).__name__})"
    if getattr(cache, "offloading", False):
        return "the cache is offloaded"
    if cache.get_seq_length() > 0 or getattr(cache, "_is_user_defined", False):
        return "the call continues a cache"
    if not getattr(model, "_can_compile_fullgraph", False):
        return f"{type(model).__name__} reads lengths off its cache"
    if attention_name(model) not in ("sdpa", "eager"):
        return f"attention {attention_name(model)!r} takes no 4D mask"
    devices = getattr(model, "hf_device_map", None)
    if devices and len(set(devices.values())) > 1:
        return "the model is spread over several devices"
    parameters = inspect.signature(model.forward).parameters
    if not {"position_ids", "attention_mask", "past_key_values"} <= parameters.keys():
        return f"{type(model).__name__}.forward takes no position_ids"
    own = [c.__dict__ for c in type(model).__mro__ if c.__name__ != "GenerationMixin"]
    if any("prepare_inputs_for_generation" in members for members in (vars(model), *own)):
        return f"{type(model).__name__} prepares its inputs in its own way"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return f"layers of kind {', '.join(sorted(kinds - {'full_attention', 'sliding_attention'}))}"
    window = getattr(config, "sliding_window", None)
    if window and max_length > window:
        return f"the sliding window ({window}) is shorter than the longest result ({max_length})"
    return None
