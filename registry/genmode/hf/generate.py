"""transformers' `generate` and the forwards beneath it.

The public way in is the callable form, `model.generate(custom_generate=...)`: it prepares inputs for every architecture
and hands them to a decoding loop. What that loop then needs of the model's private methods stands here, one function
each.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import transformers.generation.utils
from torch import Tensor

from ..errors import GenmodeError, ParameterError

_own: Any = transformers.generation.utils


def prefill(model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any]) -> Any:
    """The first forward, over the whole prompt; chunked, continued or multimodal as the call asks."""
    return model._prefill(input_ids, config, kwargs, is_first_iteration=True)


def extend_inputs(model: Any, outputs: Any, kwargs: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Keyword arguments of the next forward, in which each row feeds `tokens` more tokens."""
    extra = {} if tokens == 1 else {"num_new_tokens": tokens}
    types = kwargs.get("token_type_ids")
    extended = cast(
        "dict[str, Any]",
        model._update_model_kwargs_for_generation(
            outputs, kwargs, is_encoder_decoder=model.config.is_encoder_decoder, **extra
        ),
    )
    if (
        types is not None and tokens > 1
    ):  # what is decoded is of the last type; transformers repeats the last types here
        extended["token_type_ids"] = torch.cat([types, types[:, -1:].expand(-1, tokens)], dim=-1)
    return extended


def decoding_call(model: Any, config: Any, kwargs: dict[str, Any]) -> Any:
    """What runs a forward of one token: the model, or what it is compiled to as `compile_config` asks.

    As in transformers, a cache that cannot be compiled for, such as the dynamic one, leaves it as it is.
    """
    if getattr(config, "compile_config", None) is not None and model._valid_auto_compile_criteria(kwargs, config):
        return model.get_compiled_call(config.compile_config)
    return model


class _WithBos:
    """A tokenizer that has no id for the beginning of a text, with another in its place."""

    def __init__(self, tokenizer: Any, bos: int) -> None:
        self._tokenizer, self.bos_token_id = tokenizer, bos

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments: Any, **kwargs: Any) -> Any:
        return self._tokenizer(*arguments, **kwargs)


def healed(model: Any, input_ids: Tensor, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Prompts whose last token is replaced as `token_healing` asks: ids and mask, `[batch, length]`, long.

    transformers cannot do it for a tokenizer without a token that begins a text; the one that ends a text, or pads,
    then stands there, as such models are trained.

    Raises:
        ParameterError: the tokenizer has no padding token, which transformers' function needs.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        raise ParameterError("token_healing=True needs a tokenizer with a padding token; set tokenizer.pad_token")
    if tokenizer.bos_token_id is None:
        tokenizer = _WithBos(tokenizer, pad if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
    ids: Tensor = model.heal_tokens(input_ids, tokenizer)
    return ids, ((ids != pad).long().cumsum(1) > 0).long()


@contextmanager
def decode_mode(model: Any) -> Generator[None, None, None]:
    """How a model decodes: with the kernels that transformers prefers for it (mixture-of-experts models switch theirs),
    and with its cache, which the layers of a model that is being trained with gradient checkpointing leave out.
    """
    saving = [one for one in model.modules() if getattr(one, "gradient_checkpointing", False)] if model.training else []
    for one in saving:
        one.gradient_checkpointing = False
    try:
        with model._optimize_model_for_decode() if hasattr(model, "_optimize_model_for_decode") else nullcontext():
            yield
    finally:
        for one in saving:
            one.gradient_checkpointing = True


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
