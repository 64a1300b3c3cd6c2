"""From the arguments of a call to the strategy that serves it and its parameters.

Values are looked up as transformers does: keyword arguments, then the given config, then the model's own
config, then defaults.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..contract import Component, Need, Strategy
from ..contract.kinds import Kind
from ..errors import ParameterError
from ..hf import caches, embeddings, generate
from ..plugins.call_keys import HEADER, OWN_ARGUMENTS
from ..plugins.parameters import (
    as_list,
    build_params,
    flag_defaults,
    foreign_values,
    is_foreign,
    named_components,
    plugin_values,
    select,
    split,
)
from ..plugins.registry import Registry, registry
from ..plugins.requirements import saved_watermark
from ..plugins.resolution import Key
from ..watermark.config import WatermarkingConfig, check_given, read_flag
from .drafting import Drafting, resolve_drafting
from .flag_values import Flags
from .inputs import check_flags, check_inputs, check_objects
from .modes import neutral_flags, resolve


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
    named: list[Key] = field(default_factory=list[Key])
    """(kind, name) of the components that the call names; a key of theirs is theirs alone."""
    processors: list[Any] = field(default_factory=list)
    criteria: list[Any] = field(default_factory=list)
    drafting: Drafting = field(default_factory=Drafting)
    seed: int | list[int] | None = None
    streamer: Any = None
    tokenizer: Any = None
    cancel: Any = None
    assistant_model: Any = None
    assistant_tokenizer: Any = None
    compile: bool = False
    synced: bool = False
    results: int = 1
    """How many results each input is asked for."""
    copies: int = 1
    """How many rows the session makes of each that transformers prepares."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the strategy and the drafter need of the model and the session."""
        drafter = self.drafting.drafter
        return self.strategy.needs if drafter is None else self.strategy.needs | drafter.needs


def build(
    model: Any, inputs: Any = None, *, strategy: Any = None, processors: Any = None, criteria: Any = None,
    watermark: Any = None, draft: Any = None, verify: Any = None, seed: Any = None, generation_config: Any = None,
    streamer: Any = None, tokenizer: Any = None, cancel: Any = None, compile: bool = False, **kwargs: Any,
) -> Request:  # fmt: skip
    """Resolve the arguments of `genmode.generate`.

    Raises:
        ParameterError: a key is unknown, out of range, or contradicts another.
        UnknownComponentError: a name that no installed plugin provides.
    """
    host = registry()
    for mark in as_list(watermark):
        check_given(mark)
    check_objects(generation_config, streamer, cancel)
    assistant, assistant_tokenizer = kwargs.pop("assistant_model", None), kwargs.pop("assistant_tokenizer", None)
    if assistant is not None and not hasattr(assistant, "config"):
        raise ParameterError(f"assistant_model is a {type(assistant).__name__}; load it and give a transformers model")
    synced = kwargs.pop("synced_gpus", None)
    own = {key: kwargs.pop(key) for key in OWN_ARGUMENTS if key in kwargs}
    naming = {
        "strategy": strategy, "processors": processors, "criteria": criteria, "watermark": watermark, "draft": draft,
        "verify": verify,
    }  # fmt: skip
    named_parts = named_components(naming, host)
    parts = split(kwargs, flag_defaults(), model_inputs(model), host, named_parts)
    given = dict(vars(generation_config)) if generation_config is not None else {}
    base = vars(model.generation_config)
    unknown_in_config(given, base, host)
    flags = Flags(kwargs, given, base)
    check_flags(flags, host)
    caches.check_implementation(flags["cache_implementation"])

    draft = draft if draft is not None else flags.get("draft")
    verify = verify if verify is not None else flags.get("verify")
    named = strategy if strategy is not None else flags.get("strategy")
    chosen, why = resolve(named, flags, model, assistant, host, draft)
    instance = chosen if isinstance(chosen, Strategy) else None
    cls: type[Strategy]
    if isinstance(chosen, str):
        cls = host.get(Kind.STRATEGIES, chosen)
    else:
        cls = chosen if isinstance(chosen, type) else type(chosen)
    unmarked = watermark is None and processors is None
    refuse_strays(host, [cls, *classes_of(host, draft=draft, verify=verify)], parts.parameters, named_parts, unmarked)
    implied = implied_flags(cls, kwargs, flags)
    params = instance.params if instance is not None else None
    if params is None:
        params = build_params(cls, select(cls, flags, implied), host.origin(cls))
    in_force = Flags(implied, kwargs, given, base)
    beside = {
        "model": model,
        "tokenizer": tokenizer,
        "assistant_model": assistant,
        "assistant_tokenizer": assistant_tokenizer,
        "draft": draft,
        "verify": verify,
    }
    seen = Flags(beside, implied, kwargs, given, base)
    cls.validate(params, seen)
    drafting = resolve_drafting(cls, params, seen, seed, host)
    results = in_force["num_return_sequences"] or 1
    copies = 1
    if Need.POPULATION in cls.needs:
        copies = starting_rows(cls, params, results)
        implied["num_return_sequences"] = 1  # the session makes the rows

    config, call = prepare(generation_config, base, {**parts.flags, **implied}, neutral_flags(host))
    call.update(own, **parts.inputs)
    if inputs is not None:
        call["inputs"] = inputs
    check_inputs(model, call)
    if in_force["token_healing"]:
        heal(model, call, tokenizer)
    configured = own_watermark(config, call, in_force, base)
    watermarks = [
        host.get(*named_components({"watermark": mark}, host)[0]) if isinstance(mark, str) else mark
        for mark in (*as_list(watermark), *as_list(configured))
    ]
    return Request(
        model=model, registry=host, flags=in_force, strategy=cls, name=cls.name, why=why, params=params,
        plugin_values={**plugin_values(base, host, named_parts), **foreign_values(given), **parts.parameters},
        named=named_parts, call=call, config=config,
        processors=[*as_list(processors if processors is not None else flags.get("processors")), *watermarks],
        criteria=as_list(criteria if criteria is not None else flags.get("criteria")), drafting=drafting, seed=seed,
        streamer=streamer, tokenizer=tokenizer, cancel=cancel, assistant_model=assistant,
        assistant_tokenizer=assistant_tokenizer, compile=compile,
        synced=generate.is_synced(model) if synced is None else bool(synced), results=results, copies=copies,
    )  # fmt: skip


def starting_rows(cls: type[Strategy], params: Any, results: int) -> int:
    """How many rows an input starts with.

    Raises:
        ParameterError: the strategy says something else than a number of rows.
    """
    rows: Any = cls.rows_per_input(params, results)
    if not isinstance(rows, int) or rows < 1:
        raise ParameterError(
            f"strategy {cls.name!r} starts an input with {rows!r} rows (rows_per_input); it is to say how many, at least 1"
        )
    return rows


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
    extra = {key: value for key, value in given.items() if is_foreign(key) and key not in base}
    if extra:
        split(extra, flag_defaults(), frozenset(), host)


def classes_of(host: Registry, **named: Any) -> list[type[Component]]:
    """The classes of what arguments name; what is no component is passed over."""
    found = [host.get(*pair) for pair in named_components(named, host)]
    types = (one if isinstance(one, type) else type(one) for one in named.values())
    return [*found, *(one for one in types if issubclass(one, Component))]


ALONE = (Kind.STRATEGIES, Kind.DRAFTERS, Kind.VERIFICATIONS)
"""Kinds of which one serves a call, and whose parameters do not name it."""


def refuse_strays(
    host: Registry,
    served: Sequence[type[Component]],
    given: Mapping[str, Any],
    named: list[Key],
    unmarked: bool = False,
) -> None:
    """Refuse a parameter that only components have of which one serves a call, or watermarkers, where none of them does.

    Args:
        served: the strategy, the drafter and the verification that serve the call, as far as it names them.
    """
    for key in given:
        owners = host.owners(key, named)
        if unmarked and owners and all(info.kind == Kind.WATERMARKERS for info in owners):
            names = " or ".join(repr(info.name) for info in owners)
            raise ParameterError(
                f"{key} is a parameter of watermarker {names}, and the call names none; give "
                f"watermark={owners[0].name!r}, or leave {key} out"
            )
        if any(key in one.Params.model_fields for one in served):
            continue
        if owners and all(info.kind in ALONE for info in owners):
            names = " or ".join(f"{Kind(info.kind).noun} {info.name!r}" for info in owners)
            ways = " or ".join(f"{Kind(info.kind).argument}={info.name!r}" for info in owners)
            raise ParameterError(
                f"{key} is a parameter of {names}, and the call asks for {served[0].name!r}; name it, {ways}, or leave "
                f"{key} out"
            )


def implied_flags(cls: type[Strategy], kwargs: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    """Flags that the strategy sets for transformers, given what the call says.

    Raises:
        ParameterError: the call names the strategy and sets a flag against it.
    """
    implied: dict[str, Any] = {}
    for key, value in cls.flags.items():
        open_choice = key in cls.Params.model_fields
        if open_choice and (kwargs.get(key) is not None or (flags.given(key) and _fits(key, flags[key]))):
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


def _fits(key: str, value: Any) -> bool:
    """Whether a strategy that has the choice takes the value that a config happens to carry."""
    return not (key == "num_beams" and value == 1)


def prepare(
    config: Any, base: Mapping[str, Any], flags: dict[str, Any], neutral: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The config and keyword arguments for transformers.

    Args:
        config: the one that the call gives, or None.
        base: the values of the model's own.
        flags: those of the call, and what the strategy implies.
        neutral: flags that transformers is not told of, with the values that make it leave them alone.
    """
    flags = {key: value for key, value in flags.items() if key not in neutral}
    if config is None:
        for key, value in neutral.items():
            if base.get(key) not in (None, value):
                flags[key] = value
        return None, flags
    config = copy.deepcopy(config)
    for key, value in flags.items():
        setattr(config, key, value)
    left: dict[str, Any] = {}
    for key, value in neutral.items():
        if getattr(config, key, None) is not None:
            setattr(config, key, value)
        elif base.get(key) not in (None, value):
            left[key] = value
    return config, left


def neutralise(config: Any, call: dict[str, Any], key: str) -> None:
    """Take a flag out of what transformers gets."""
    call.pop(key, None)
    if config is not None and getattr(config, key, None) is not None:
        setattr(config, key, None)


def own_watermark(
    config: Any, call: dict[str, Any], flags: Flags, base: Mapping[str, Any]
) -> WatermarkingConfig | None:
    """The watermark of genmode's that a config or a flag says, taken out of what transformers gets; None if there is none.

    Raises:
        ParameterError: what is said is no watermark.
    """
    key = "watermarking_config"
    found = read_flag(flags[key])
    if found is None and (saved := saved_watermark(base.get(HEADER))) is not None:
        found = WatermarkingConfig.from_dict(saved)
    if "scheme" in (base[key] if isinstance(base.get(key), dict) else ()):
        raise ParameterError(
            f"the model's generation_config holds the dictionary of a watermark of genmode's, which transformers cannot "
            f"read there; set model.generation_config.{key} = genmode.WatermarkingConfig.from_dict(...)"
        )
    if not isinstance(found, WatermarkingConfig):
        if isinstance(getattr(config, key, None), dict):  # transformers reads one as an argument, not in a config
            setattr(config, key, found)
        return None
    neutralise(config, call, key)
    if base.get(key) is not None:
        call[key] = None  # last in transformers' order; a config without it would be filled up from the model's
    return found


def heal(model: Any, call: dict[str, Any], tokenizer: Any) -> None:
    """Token healing, which transformers' callable form cannot do for want of the tokenizer."""
    name = "inputs" if "inputs" in call else "input_ids"
    if tokenizer is None or call.get(name) is None:
        raise ParameterError("token_healing=True needs the prompt's ids and the tokenizer; pass tokenizer=")
    if wrong := embeddings.lookup_failure(model, call[name]):  # which the tokenizer could not decode
        raise ParameterError(f"token_healing=True reads the prompt as text: {wrong}")
    ids, mask = generate.healed(model, call[name], tokenizer)
    bare = [row for row, text in enumerate(mask.any(1).tolist()) if not text]
    if bare:
        raise ParameterError(
            f"token_healing=True leaves nothing of prompt {bare[0]}, since white space at its ends and special tokens are "
            "taken off; give a prompt that says something, or leave token_healing out"
        )
    call[name], call["attention_mask"] = ids, mask
