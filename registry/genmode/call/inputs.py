"""What a call is given, checked before anything runs: mistakes that would else surface deep inside a model."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from functools import lru_cache
from numbers import Real
from typing import Any

from torch import Tensor

from ..contract import Component, Stage
from ..contract.kinds import Kind
from ..contract.stand_in import StandIn
from ..errors import ParameterError
from ..plugins.parameters import check_params, flag_defaults
from ..plugins.registry import Registry
from .flag_values import Flags

WHOLE = (
    "num_beams",
    "num_return_sequences",
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "prefill_chunk_size",
    "pad_token_id",
)
"""Flags that are whole numbers, and that transformers does not check."""
NUMBERS = ("penalty_alpha", "diversity_penalty", "num_beam_groups", "guidance_scale", "top_k")
"""Flags that transformers compares with numbers before anyone looks at their type."""
SWITCHES = (
    "do_sample", "use_cache", "token_healing", "low_memory", "use_mtp", "return_dict_in_generate", "output_scores",
    "output_logits", "output_attentions", "output_hidden_states",
)  # fmt: skip
"""Flags that are on or off: of another value one reader finds that it is no `False`, and the next that it is false."""


def check_objects(generation_config: Any, streamer: Any, cancel: Any) -> None:
    """Refuse objects that lack what is asked of them.

    Raises:
        ParameterError: says which, and what it has to have.
    """
    if generation_config is not None and not hasattr(generation_config, "get_generation_mode"):
        raise ParameterError(
            f"generation_config is a {type(generation_config).__name__}; give a GenerationConfig, or its values as "
            "keyword arguments"
        )
    for name, given, methods in (("streamer", streamer, ("put", "end")), ("cancel", cancel, ("is_set",))):
        missing = [method for method in methods if not callable(getattr(given, method, None))]
        if given is not None and missing:
            raise ParameterError(f"{name}={given!r} has no method {' and no '.join(missing)}")


def check_flags(flags: Flags, host: Registry) -> None:
    """Refuse flags of the wrong type, that are no finite number, or that the component which serves them does not take.

    Raises:
        ParameterError: names the flag.
    """
    for key in WHOLE:
        value = flags[key]
        try:
            number = 1 if value is None else operator.index(value)
            if isinstance(value, bool):
                raise TypeError
        except TypeError as error:
            raise ParameterError(f"{key}={value!r} is no whole number") from error
        if key == "num_beams" and number < 1:
            raise ParameterError(f"num_beams={value!r}: give 1 for no beams, or more")
        if key == "prefill_chunk_size" and number < 1:
            raise ParameterError(f"prefill_chunk_size={value!r}: give 1 token or more, or leave it out")
        if number >= 2**31:
            raise ParameterError(f"{key}={value!r} is more than any call can use; give less than 2**31")
    for key in SWITCHES:
        value = flags.get(key)  # the oldest release lacks some
        if not isinstance(value, (bool, type(None))):
            raise ParameterError(f"{key}={value!r}: give True or False")
    if not isinstance(flags["max_time"], (int, float, type(None))):
        raise ParameterError(f"max_time={flags['max_time']!r} is no number of seconds")
    servers = flag_servers((*host.own(Kind.PROCESSORS), *host.own(Kind.CRITERIA)))
    for key, value in flags.set_by_caller():
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(f"{key}={value!r} is not allowed; give a finite number, or leave {key} out")
        if key in NUMBERS and (isinstance(value, bool) or not isinstance(value, Real)):
            raise ParameterError(f"{key}={value!r} is not allowed; give a number, or leave {key} out")
        for component in servers.get(key, ()):
            if isinstance(value, bool) and "bool" not in str(component.Params.model_fields[key].annotation):
                raise ParameterError(f"{key}={value!r} is not allowed; it is no switch")
            narrowing = getattr(component, "stage", None) in (Stage.TEMPERATURE, Stage.TRUNCATION)
            if flags["do_sample"] or not narrowing:  # without sampling, transformers leaves those out
                check_params(component, {key: value}, host.origin(component))


@lru_cache(maxsize=4)
def flag_servers(components: tuple[type[Component], ...]) -> Mapping[str, list[type[Component]]]:
    """Those components that stand in for what transformers builds of a flag, by the flag."""
    found: dict[str, list[type[Component]]] = {}
    for cls in components:
        if issubclass(cls, StandIn):
            for key in cls.Params.model_fields.keys() & flag_defaults().keys():
                found.setdefault(key, []).append(cls)
    return found


def check_inputs(model: Any, call: Mapping[str, Any]) -> None:
    """Refuse prompts that no model can read.

    Raises:
        ParameterError: says what was given and which shape is asked for.
    """
    ids = prompt_ids(model, call)
    if ids is None:
        return
    if not isinstance(ids, Tensor):
        unpack = "; unpack it: generate(model, **inputs)" if isinstance(ids, Mapping) else ""
        raise ParameterError(
            f"the prompt is a {type(ids).__name__}; give token ids as a tensor [batch, length], long{unpack}"
        )
    if ids.is_floating_point() or ids.is_complex():
        raise ParameterError(f"the prompt is of {ids.dtype}; give token ids, long, or pass inputs_embeds=")
    if ids.dim() < 2:
        raise ParameterError(f"the prompt has the shape {list(ids.shape)}; give [batch, length], e.g. input_ids[None]")
    if 0 in ids.shape[:2] and call.get("inputs_embeds") is None:
        raise ParameterError(
            f"the prompt is empty (shape {list(ids.shape)}); give at least one row of at least one token, such as "
            "the id that begins a text"
        )
    mask = call.get("attention_mask")
    if not isinstance(mask, Tensor) or not mask.dim() == ids.dim() == 2:
        return
    if mask.shape[0] != ids.shape[0] or mask.shape[1] < ids.shape[1]:
        raise ParameterError(
            f"attention_mask has the shape {list(mask.shape)} and the prompt {list(ids.shape)}; the mask has one "
            "number for each token"
        )


def prompt_ids(model: Any, call: Mapping[str, Any]) -> Any:
    """The token ids among the inputs of a call; None if there are none."""
    ids = call.get("input_ids")
    if ids is None and getattr(model, "main_input_name", "") == "input_ids":
        ids = call.get("inputs")
    return ids
