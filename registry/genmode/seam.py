"""The one place that uses names which transformers keeps to itself.

Everything here is tested against the oldest and the newest supported transformers. The public seam is the
callable form of `model.generate(custom_generate=...)`: it prepares inputs for every architecture and hands
them to our loop. What that loop then needs of the model's privates stands below, one function each.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import transformers.generation.utils
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.generation import logits_process, stopping_criteria

from .errors import GenmodeError

_own: Any = transformers.generation.utils

CACHE_NAMES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")

PACKED, SPLIT = "genmode_packed", "genmode_split"
"""Names of what stands in for "sdpa" while a forward is captured, see `genmode.session.attention`."""


def attention_name(model: Any) -> str:
    """How the model computes attention, whether or not another thread captures it just now."""
    name = str(model.config._attn_implementation)
    return "sdpa" if name in (PACKED, SPLIT) else name


def generation_class(name: str) -> type | None:
    """transformers' own logits processor or stopping criterion of that name; None if it has none."""
    found = getattr(logits_process, name, None) or getattr(stopping_criteria, name, None)
    return found if isinstance(found, type) else None


def is_own(thing: Any, *names: str) -> bool:
    """Whether an object is of one of these classes of transformers itself, not of one that is only called so."""
    return type(thing).__name__ in names and type(thing) is generation_class(type(thing).__name__)


def default_flags() -> dict[str, Any]:
    """Every key of transformers' generation config with its default in `generate`."""
    keys = {key: None for key in vars(GenerationConfig()) if not key.startswith("_")}
    return {**keys, **cast("Any", GenerationConfig)._get_default_generation_params()}


def special_tokens(config: Any) -> tuple[list[int], int | None]:
    """The ids that end a row and the id that pads it, as `generate` settled them for this call."""
    eos, pad = config._eos_token_tensor, config._pad_token_tensor
    return ([] if eos is None else [int(i) for i in eos.tolist()], None if pad is None else int(pad))


def prefill(model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any]) -> Any:
    """The first forward, over the whole prompt; chunked, continued or multimodal as the call asks."""
    return model._prefill(input_ids, config, kwargs, is_first_iteration=True)


def extend_inputs(model: Any, outputs: Any, kwargs: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Keyword arguments of the next forward, in which each row feeds `tokens` more tokens."""
    extra = {} if tokens == 1 else {"num_new_tokens": tokens}
    return cast(
        "dict[str, Any]",
        model._update_model_kwargs_for_generation(
            outputs, kwargs, is_encoder_decoder=model.config.is_encoder_decoder, **extra
        ),
    )


def decode_mode(model: Any) -> AbstractContextManager[Any]:
    """The kernels that transformers prefers for decoding (mixture-of-experts models switch theirs)."""
    return model._optimize_model_for_decode() if hasattr(model, "_optimize_model_for_decode") else nullcontext()


def is_synced(model: Any) -> bool:
    """Whether processes must run the same number of forwards: ZeRO stage 3 or FSDP over several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    return torch.distributed.get_world_size() > 1 and bool(
        _own.is_deepspeed_zero3_enabled() or _own.is_fsdp_managed_module(model)
    )


def peers_unfinished(model: Any, finished: bool, device: torch.device) -> bool:
    """Whether any process of a sharded model (ZeRO stage 3, FSDP) still decodes; all must ask."""
    return bool(model._has_unfinished_sequences(finished, True, device=device))


def reorder_cache(model: Any, cache: Any, rows: Tensor) -> Any:
    """The cache with row i continuing `rows[i]`; the model's own way where it has one."""
    if hasattr(model, "_reorder_cache"):
        return model._reorder_cache(cache, rows)
    if not hasattr(cache, "reorder_cache"):
        raise TypeError(f"{type(cache).__name__} cannot be reordered")
    cache.reorder_cache(rows)
    return cache


def rewindable_cache(model: Any, cache: Any) -> Any:
    """A cache like this one that can forget its last tokens; None if the model has no such cache.

    Sliding-window layers drop what leaves the window, so a fresh cache gets layers that keep everything;
    the model masks by the window all the same. Recurrent states cannot go back.
    """
    if getattr(model, "_is_stateful", False) or not isinstance(cache, Cache):
        return None
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if not all(hasattr(layer, "crop") and hasattr(layer, "keys") for layer in own.layers):
        return None
    if type(own) is DynamicCache and any(getattr(layer, "is_sliding", False) for layer in own.layers):
        return None if own.get_seq_length() or isinstance(cache, EncoderDecoderCache) else DynamicCache()
    return cache


def rewind_cache(cache: Any, tokens: int) -> None:
    """Drop the last `tokens` tokens of every row. (transformers read a negative number so in all versions.)"""
    if tokens:
        cache.crop(-tokens)


def split_cache(cache: Any, row: int) -> Any:
    """A cache of one row, sharing no storage that is written."""
    index = torch.tensor([row])
    one = copy.copy(cache)
    if isinstance(cache, EncoderDecoderCache):
        one.self_attention_cache = split_cache(cache.self_attention_cache, row)
        one.cross_attention_cache = split_cache(cache.cross_attention_cache, row)
        one.is_updated = dict(cache.is_updated)
        return one
    one.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in one.layers:
        if getattr(layer, "is_initialized", False):
            layer.keys = layer.keys.index_select(0, index.to(layer.keys.device))
            layer.values = layer.values.index_select(0, index.to(layer.values.device))
    return one


def slab_obstacle(model: Any, cache: Any, max_length: int) -> str | None:
    """Why the model cannot decode on rows of their own lengths; None if it can.

    Such a model reads positions from `position_ids`, visibility from a 4D mask and lengths from nowhere
    else, which is what transformers asks of a model that it compiles in full (`_can_compile_fullgraph`).
    """
    config = model.config.get_text_config(decoder=True)
    if model.config.is_encoder_decoder:
        return "encoder-decoder models keep a second cache"
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
    if any(
        "prepare_inputs_for_generation" in c.__dict__ for c in type(model).__mro__ if c.__name__ != "GenerationMixin"
    ):
        return f"{type(model).__name__} prepares its inputs in its own way"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return f"layers of kind {', '.join(sorted(kinds - {'full_attention', 'sliding_attention'}))}"
    window = getattr(config, "sliding_window", None)
    if window and max_length > window:
        return f"the sliding window ({window}) is shorter than the longest result ({max_length})"
    return None


def tensor_parallel_size(model: Any) -> int:
    """Over how many processes the weights of one layer are spread; 1 if they are not."""
    return getattr(model, "_tp_size", None) or 1


def has_loop_of_its_own(model: Any) -> bool:
    """Whether the model's class brings its own `generate`, as diffusion, speech and other models do."""
    return getattr(plain_generate(model), "__func__", None) is not _own.GenerationMixin.generate


def plain_generate(model: Any) -> Any:
    """transformers' own `generate`, bound to the model, beneath whatever genmode has put above it."""
    for cls in type(model).__mro__:
        own_generate = cls.__dict__.get("generate")
        if own_generate is not None and not cls.__module__.startswith("genmode."):
            return own_generate.__get__(model, type(model))
    raise GenmodeError(f"{type(model).__name__} has no generate; genmode decodes from transformers' generative models")
