"""From the arguments of a call to the strategy that serves it and its parameters.

Values are looked up as transformers does: keyword arguments, then the given config, then the model's own
config, then defaults.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import transformers

from .. import parameters, seam
from ..contract import Component, Strategy
from ..errors import ParameterError
from ..registry import Registry, registry
from ..watermarking import WatermarkingConfig
from .inputs import check_flags, check_inputs, check_objects

OWN_ARGUMENTS = ("inputs", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "negative_prompt_ids",
                 "negative_prompt_attention_mask")  # fmt: skip
"""Arguments of transformers' `generate` that are neither flags nor model inputs, and go through as they are."""

NEUTRAL: Mapping[str, Any] = {
    "prompt_lookup_num_tokens": None, "assistant_early_exit": None, "use_mtp": None, "dola_layers": None,
    "penalty_alpha": None, "constraints": None, "force_words_ids": None, "num_beam_groups": 1,
    "diversity_penalty": 0.0, "stop_strings": None, "token_healing": None, "low_memory": None,
}  # fmt: skip
"""Flags that the strategy or the session serves, with the value that makes transformers leave them alone."""

DRAFTING = ("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
"""Flags that ask for drafts, besides an assistant model."""

NOT_FLAGS = frozenset({"strategy", "processors", "criteria", "genmode", "transformers_version"})


@lru_cache(maxsize=1)
def flag_defaults() -> Mapping[str, Any]:
    """Every key of transformers' config with its default in `generate`."""
    return seam.default_flags()


class Flags(Mapping[str, Any]):
    """The flags in force, looked up in order; also readable as attributes, as a config is."""

    def __init__(self, *sources: Mapping[str, Any]) -> None:
        self._sources = sources

    def __getitem__(self, key: str) -> Any:
        for source in self._sources:
            value = source.get(key)
            if value is not None:
                return value
        return flag_defaults()[key]

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None

    def __iter__(self) -> Iterator[str]:
        seen = set(flag_defaults())
        for source in self._sources:
            seen |= {key for key in source if not key.startswith("_")}
        return iter(sorted(seen))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def given(self, key: str) -> bool:
        """Whether a keyword argument or a config sets the key, rather than a default."""
        return any(source.get(key) is not None for source in self._sources)


@dataclass
class Request:
    """A call, resolved as far as can be without the model's inputs."""

    model: Any
    registry: Registry
    flags: Flags
    strategy: type[Strategy]
    name: str
    why: str
    params: Any
    plugin_values: dict[str, Any]
    """Values of keys that belong to components and not to transformers."""
    call: dict[str, Any]
    """Keyword arguments for transformers' `generate`."""
    config: Any
    named: list[tuple[str, str]] = field(default_factory=list)
    """(kind, name) of the components that the call names; a key of theirs is theirs alone."""
    processors: list[Any] = field(default_factory=list)
    criteria: list[Any] = field(default_factory=list)
    seed: int | list[int] | None = None
    streamer: Any = None
    tokenizer: Any = None
    cancel: Any = None
    assistant_model: Any = None
    assistant_tokenizer: Any = None
    compile: bool = False
    synced: bool = False


def build(
    model: Any, inputs: Any = None, *, strategy: Any = None, processors: Any = None, criteria: Any = None,
    watermark: Any = None, seed: Any = None, generation_config: Any = None, streamer: Any = None,
    tokenizer: Any = None, cancel: Any = None, compile: bool = False, **kwargs: Any,
) -> Request:  # fmt: skip
    """Resolve the arguments of `genmode.generate`.

    Raises:
        ParameterError: a key is unknown, out of range, or contradicts another.
        UnknownComponentError: a name that no installed plugin provides.
    """
    host = registry()
    check_objects(generation_config, streamer, cancel)
    assistant, assistant_tokenizer = kwargs.pop("assistant_model", None), kwargs.pop("assistant_tokenizer", None)
    synced = kwargs.pop("synced_gpus", None)
    own = {key: kwargs.pop(key) for key in OWN_ARGUMENTS if key in kwargs}
    named_parts = named_components(host, strategy, processors, criteria, watermark)
    split = parameters.split(kwargs, flag_defaults(), model_inputs(model), host, named_parts)
    given = dict(vars(generation_config)) if generation_config is not None else {}
    base = vars(model.generation_config)
    unknown_in_config(given, base, host)
    flags = Flags(kwargs, given, base)
    check_flags(flags)

    chosen, why = resolve(strategy if strategy is not None else flags.get("strategy"), flags, model, assistant, host)
    instance = chosen if isinstance(chosen, Strategy) else None
    cls: type[Strategy]
    if isinstance(chosen, str):
        cls = host.get("strategies", chosen)
    else:
        cls = chosen if isinstance(chosen, type) else type(chosen)
    unmarked = watermark is None and processors is None
    refuse_strays(host, cls, split.parameters, named_parts, unmarked)
    named = strategy is not None or flags.get("strategy") is not None
    implied = implied_flags(cls, kwargs, flags, named)
    values = {key: implied.get(key, flags.get(key)) for key in cls.Params.model_fields}
    params = instance.params if instance is not None else build_params(host, cls, values)
    in_force = Flags(implied, kwargs, given, base)
    beside = {
        "model": model,
        "tokenizer": tokenizer,
        "assistant_model": assistant,
        "assistant_tokenizer": assistant_tokenizer,
    }
    cls.validate(params, Flags(beside, implied, kwargs, given, base))

    config, call = prepare(generation_config, base, {**split.flags, **implied}, in_force)
    call.update(own, **split.inputs)
    if inputs is not None:
        call["inputs"] = inputs
    check_inputs(model, call)
    if in_force["token_healing"]:
        heal(model, call, tokenizer)
    configured = in_force["watermarking_config"]
    own_scheme = isinstance(configured, WatermarkingConfig)
    if isinstance(configured, dict) and "scheme" in configured:
        configured, own_scheme = WatermarkingConfig.from_dict(cast("dict[str, Any]", configured)), True
    if own_scheme:
        neutralise(config, call, "watermarking_config")
    watermarks = [
        host.get(*named_components(host, None, None, None, mark)[0]) if isinstance(mark, str) else mark
        for mark in (*as_list(watermark), *([configured] if own_scheme else []))
    ]
    return Request(
        model=model, registry=host, flags=in_force, strategy=cls, name=cls.name, why=why, params=params,
        plugin_values=plugin_values(split.parameters, given, base, host, named_parts), named=named_parts,
        call=call, config=config,
        processors=[*as_list(processors if processors is not None else flags.get("processors")), *watermarks],
        criteria=as_list(criteria if criteria is not None else flags.get("criteria")), seed=seed,
        streamer=streamer, tokenizer=tokenizer, cancel=cancel, assistant_model=assistant,
        assistant_tokenizer=assistant_tokenizer, compile=compile,
        synced=seam.is_synced(model) if synced is None else bool(synced),
    )  # fmt: skip


def build_params(host: Registry, cls: type[Component], values: Mapping[str, Any]) -> Any:
    """A component's parameters from those values that are set; errors name who provides it."""
    info = host.provider(cls)
    given = {key: value for key, value in values.items() if value is not None}
    return parameters.build_params(cls, given, info.origin if info is not None else "")


def named_components(host: Registry, *groups: Any) -> list[tuple[str, str]]:
    """(kind, name) of the components that a call names: strategy, processors, criteria, watermark."""
    found: list[tuple[str, str]] = []
    for kinds, given in zip(PLACES, groups, strict=True):
        for name in as_list(given):
            if isinstance(name, str):
                kind = next((k for k in kinds if host.has(k, name)), kinds[0])
                found.append((kind, name))
    return found


PLACES = (("strategies",), ("processors", "watermarkers"), ("criteria",), ("watermarkers", "processors"))
"""The kinds that each of the arguments strategy, processors, criteria and watermark may name."""


def model_inputs(model: Any) -> frozenset[str]:
    """Names that the model's forward, or an encoder's, may take."""
    known = _inputs.get(type(model))
    if known is None or known[0] is not type(model).forward:
        known = _inputs[type(model)] = (type(model).forward, _model_inputs(model))
    return known[1]


_inputs: weakref.WeakKeyDictionary[type, tuple[Any, frozenset[str]]] = weakref.WeakKeyDictionary()


def _model_inputs(model: Any) -> frozenset[str]:
    names = set(inspect.signature(model.forward).parameters) | {
        "input_ids", "inputs_embeds", "attention_mask", "decoder_input_ids", "decoder_attention_mask",
        "encoder_outputs", "position_ids", "past_key_values", "token_type_ids", "use_model_defaults", "trust_remote_code", "synced_gpus",
    }  # fmt: skip
    names |= set(inspect.signature(model.prepare_inputs_for_generation).parameters)
    for part in (getattr(model, "encoder", None), getattr(getattr(model, "model", None), "encoder", None)):
        if part is not None:
            names |= set(inspect.signature(part.forward).parameters)
    return frozenset(names - {"self", "kwargs", "model_kwargs"})


def unknown_in_config(given: Mapping[str, Any], base: Mapping[str, Any], host: Registry) -> None:
    """Refuse keys of a given config that neither transformers, nor a plugin, nor the model's config knows."""
    extra = {
        key: value for key, value in given.items()
        if not key.startswith("_") and key not in flag_defaults() and key not in base and key not in NOT_FLAGS
    }  # fmt: skip
    if extra:
        parameters.split(extra, flag_defaults(), frozenset(), host)


def plugin_values(
    called: Mapping[str, Any],
    given: Mapping[str, Any],
    base: Mapping[str, Any],
    host: Registry,
    named: list[tuple[str, str]],
) -> dict[str, Any]:
    """Values of components' keys: those of the call, else those that the configs carry."""
    found: dict[str, Any] = {}
    for source in (base, given):
        for key, value in source.items():
            foreign = not key.startswith("_") and key not in flag_defaults() and key not in NOT_FLAGS
            if foreign and value is not None and (source is given or host.owners(key, named)):
                found[key] = value
    return {**found, **called}


def resolve(
    named: Any, flags: Flags, model: Any, assistant: Any, host: Registry
) -> tuple[str | Strategy | type[Strategy], str]:
    """The strategy that serves a call, as a name, class or object, and why it does."""
    if isinstance(named, (str, Strategy)) or (isinstance(named, type) and issubclass(named, Strategy)):
        return named, "named by the call"
    if named is not None:
        raise ParameterError(f"strategy={named!r}: give a name, a Strategy class or a Strategy object")
    answer = host.hooks().resolve_strategy(flags=flags, model=model, assistant_model=assistant)
    if answer is not None:
        return answer[0], f"chosen by {answer[1]}"
    mode = transformers.GenerationConfig.get_generation_mode(flags, assistant)  # type: ignore[arg-type]
    name = str(mode.value)
    if flags["dola_layers"] is not None and name != "dola_generation":
        raise ParameterError(
            f"dola_layers={flags['dola_layers']!r} and num_beams={flags['num_beams']} contradict each other: "
            "DoLa takes greedy search or sampling; leave one out"
        )
    drafting = [] if assistant is None else [f"assistant_model={type(assistant).__name__}"]
    drafting += [f"{key}={flags[key]!r}" for key in DRAFTING if flags.get(key)]
    if drafting and name not in ("assisted_generation", "dola_generation"):
        raise ParameterError(
            f"{', '.join(drafting)} and the other flags, which ask for {name}, contradict each other: drafts go with "
            f"greedy search or sampling; leave out one, or num_beams={flags['num_beams']}"
        )
    reasons = drafting[:1] if assistant is not None else []
    reasons += [
        f"{key}={flags[key]!r}" for key in
        ("num_beams", "do_sample", "num_beam_groups", "penalty_alpha", "dola_layers", "force_words_ids", "constraints",
         "prompt_lookup_num_tokens", "assistant_early_exit") if flags[key] not in (None, False, 1) or flags[key] is True
    ]  # fmt: skip
    if name == "assisted_generation":
        if flags.get("use_mtp") or flags.get("speculation_type"):
            name = "multi_token_prediction"
        elif assistant is None and flags["prompt_lookup_num_tokens"] is not None and not flags["assistant_early_exit"]:
            name = "prompt_lookup"
    return name, f"transformers' mode for {', '.join(reasons)}" if reasons else "transformers' mode without flags"


def refuse_strays(
    host: Registry, cls: type[Strategy], given: Mapping[str, Any], named: list[tuple[str, str]], unmarked: bool = False
) -> None:
    """Refuse a parameter that only strategies have, or only watermarkers, where none of them serves the call."""
    for key in given:
        owners = host.owners(key, named)
        if unmarked and owners and all(info.kind == "watermarkers" for info in owners):
            names = " or ".join(repr(info.name) for info in owners)
            raise ParameterError(
                f"{key} is a parameter of watermarker {names}, and the call names none; give "
                f"watermark={owners[0].name!r}, or leave {key} out"
            )
        if key not in cls.Params.model_fields and owners and all(info.kind == "strategies" for info in owners):
            names = " or ".join(repr(info.name) for info in owners)
            raise ParameterError(
                f"{key} is a parameter of strategy {names}, and the flags ask for {cls.name!r}; name the strategy, "
                f"strategy={owners[0].name!r}, or leave {key} out"
            )


def implied_flags(cls: type[Strategy], kwargs: Mapping[str, Any], flags: Flags, named: bool) -> dict[str, Any]:
    """Flags that the strategy sets for transformers, given what the call says.

    Raises:
        ParameterError: the call names the strategy and sets a flag against it.
    """
    implied: dict[str, Any] = {}
    for key, value in cls.flags.items():
        open_choice = key in cls.Params.model_fields
        if open_choice and (kwargs.get(key) is not None or (flags.given(key) and _fits(cls, key, flags[key]))):
            continue
        if not open_choice and kwargs.get(key) is not None and kwargs[key] != value:
            raise ParameterError(
                f"strategy {cls.name!r} needs {key}={value!r}, but the call sets {key}={kwargs[key]!r}; "
                f"leave {key} out, or name another strategy"
            )
        implied[key] = value
    if "num_beams" not in cls.flags and "num_beams" not in cls.Params.model_fields and flags["num_beams"] != 1:
        implied["num_beams"] = 1
    return implied


def _fits(cls: type[Strategy], key: str, value: Any) -> bool:
    """Whether a strategy that is named takes the value that a config happens to carry."""
    return not (key == "num_beams" and value == 1)


def prepare(config: Any, base: Mapping[str, Any], flags: dict[str, Any], in_force: Flags) -> tuple[Any, dict[str, Any]]:
    """The config and keyword arguments for transformers, without the flags that are not its business."""
    flags = {key: value for key, value in flags.items() if key not in NEUTRAL}
    if config is None:
        for key, neutral in NEUTRAL.items():
            if base.get(key) not in (None, neutral):
                flags[key] = neutral
        return None, flags
    config = copy.deepcopy(config)
    for key, value in flags.items():
        setattr(config, key, value)
    left: dict[str, Any] = {}
    for key, neutral in NEUTRAL.items():
        if getattr(config, key, None) is not None:
            setattr(config, key, neutral)
        elif base.get(key) not in (None, neutral):
            left[key] = neutral
    return config, left


def neutralise(config: Any, call: dict[str, Any], key: str) -> None:
    """Take a flag out of what transformers gets."""
    call.pop(key, None)
    if config is not None and getattr(config, key, None) is not None:
        setattr(config, key, None)


def heal(model: Any, call: dict[str, Any], tokenizer: Any) -> None:
    """Token healing, which transformers' callable form cannot do for want of the tokenizer."""
    name = "inputs" if "inputs" in call else "input_ids"
    if tokenizer is None or call.get(name) is None:
        raise ParameterError("token_healing=True needs the prompt's ids and the tokenizer; pass tokenizer=")
    healed = model.heal_tokens(call[name], tokenizer)
    if healed.shape != call[name].shape:
        call.pop("attention_mask", None)
    call[name] = healed


def as_list(value: Any) -> list[Any]:
    """A list of what was given: nothing, one thing, or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
