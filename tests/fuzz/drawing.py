"""Which call a number stands for: strategy, flags, components and their parameters, prompts and how it is listened to."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from random import Random
from typing import Any

from genmode.contract import Kind
from genmode.plugins.parameters import flag_defaults
from genmode.plugins.registry import Registry

from .call import NOT_FLAGS, Call
from .models import DTYPES, FAMILIES, Named
from .values import KNOWN, NEEDS_TOKENIZER, Drawer, valid, wild

LEFT_OUT = frozenset({"grammar", "multi_token_prediction"})
"""Components that have tests of their own of this kind, or need a model that these are not."""
STATED = ("do_sample", "low_memory", "use_mtp", "speculation_type")
"""Fields of strategies that another choice settles."""

# The strategies as transformers' flags ask for them.
MODES: tuple[tuple[int, Drawer], ...] = (
    (10, lambda rng: {"do_sample": False}),
    (14, lambda rng: {"do_sample": True}),
    (7, lambda rng: {"num_beams": rng.randint(2, 4)}),
    (5, lambda rng: {"num_beams": rng.randint(2, 4), "do_sample": True}),
    (4, lambda rng: {"prompt_lookup_num_tokens": rng.randint(1, 5), "do_sample": rng.random() < 0.5}),
    (4, lambda rng: {"assistant_model": Named("near"), "do_sample": rng.random() < 0.5}),
    (2, lambda rng: {"assistant_early_exit": 1, "do_sample": rng.random() < 0.5}),
    (2, lambda rng: {"penalty_alpha": 0.6, "top_k": rng.randint(2, 5)}),
    (2, lambda rng: {"dola_layers": KNOWN["dola_layers"](rng), "do_sample": rng.random() < 0.3}),
    (2, lambda rng: {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}),
    (2, lambda rng: {"num_beams": 3, "force_words_ids": KNOWN["force_words_ids"](rng)}),
)

COMPANIONS: Mapping[str, Mapping[str, Any]] = {
    "context_alpha": {"context_free_ids": Named("other_prompt")},
    "amateur_temperature": {"amateur_model": Named("near")},
    "contrastive_alpha": {"amateur_model": Named("near")},
    "contrastive_beta": {"amateur_model": Named("near")},
    "expert_model": {"anti_expert_model": Named("near")},
    "expert_alpha": {"anti_expert_model": Named("near")},
    "best_of_weight": {"best_of_scorer": Named("prefer_evens")},
    "constraints_count_prompt": {"force_words_ids": [[7]]},
}
"""What a component needs beside one of its keys."""
ORDERED = (
    ("dynatemp_low", "dynatemp_high"), ("min_characters", "max_characters"), ("min_sentences", "max_sentences"),
    ("step_search_keep", "step_search_rows"),
)  # fmt: skip
NEEDS_EOS = frozenset({
    "exponential_decay_length_penalty", "min_characters", "max_characters", "min_sentences", "max_sentences",
})  # fmt: skip

# Flags that are no component's, or mean more than its schema says: how often, and from what.
FLAGS: Mapping[str, tuple[float, Drawer]] = {
    "eos_token_id": (0.5, lambda rng: rng.choice([7, [7, 9, 11], list(range(5, 95, 6))])),
    "pad_token_id": (0.2, lambda rng: rng.choice([0, 0, 2, 7])),
    "return_dict_in_generate": (0.35, lambda rng: True),
    "output_scores": (0.3, lambda rng: True),
    "output_logits": (0.15, lambda rng: True),
    "output_attentions": (0.03, lambda rng: True),
    "output_hidden_states": (0.05, lambda rng: True),
    "use_cache": (0.06, lambda rng: False),
    "cache_implementation": (0.05, lambda rng: rng.choice(["static", "dynamic"])),
    "num_return_sequences": (0.12, lambda rng: rng.randint(1, 3)),
    "max_time": (0.03, lambda rng: 60.0),
    "token_healing": (0.02, lambda rng: True),
    "prefill_chunk_size": (0.02, lambda rng: rng.randint(1, 4)),
    "guidance_scale": (0.03, lambda rng: rng.choice([0.5, 1.5, 3.0])),
    "length_penalty": (0.05, lambda rng: rng.choice([-1.0, 0.0, 2.0])),
    "early_stopping": (0.05, KNOWN["early_stopping"]),
    "low_memory": (0.02, lambda rng: True),
    "remove_invalid_values": (0.03, lambda rng: True),
    "max_length": (0.05, KNOWN["max_length"]),
    "num_assistant_tokens_schedule": (0.02, lambda rng: rng.choice(["heuristic", "heuristic_transient"])),
}


@functools.cache
def components(kind: Kind, stock: bool) -> tuple[Any, ...]:
    """The built-in components of a kind; of those whose every field is an argument of transformers, if asked."""
    found = [one for one in Registry().own(kind) if one.name not in LEFT_OUT]
    taken = {*flag_defaults(), *NOT_FLAGS}
    return tuple(
        one for one in found if not stock or (one.Params.model_fields and taken >= set(one.Params.model_fields))
    )


@functools.cache
def every_key() -> tuple[str, ...]:
    """Every flag and every parameter of a component that a wild value may be given to."""
    kinds = (Kind.STRATEGIES, Kind.PROCESSORS, Kind.CRITERIA, Kind.WATERMARKERS)
    fields = {key for kind in kinds for one in components(kind, False) for key in one.Params.model_fields}
    return tuple(sorted({*fields, *FLAGS, "seed", "strategy", "processors", "criteria", "watermark"}))


def drawn(seed: int, index: int) -> Call:
    """The call of this number."""
    rng = Random(f"{seed} {index}")
    stock = rng.random() < 0.4
    family = "llama" if rng.random() < 0.4 else rng.choice(FAMILIES)
    lengths = _lengths(rng)
    keys: dict[str, Any] = {"max_new_tokens": rng.choice([1, 2, 4, 6, 8, 10])}
    keys |= {key: draw(rng) for key, (share, draw) in FLAGS.items() if rng.random() < share / 2}
    keys |= _strategy(rng, stock)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 4])):
        keys |= _component(rng, stock, 1 if lengths is None else len(lengths), keys)
    keys = _consistent(keys, rng)
    if not stock and rng.random() < 0.7:
        several = lengths is not None and rng.random() < 0.5
        keys["seed"] = [rng.randrange(99) for _ in lengths or ()] if several else rng.randrange(99)
    if rng.random() < 0.35:
        key = rng.choice([*keys] if rng.random() < 0.6 else every_key())
        keys[key] = wild(key, rng)
    if keys.keys() & NEEDS_TOKENIZER and rng.random() < 0.95:
        keys["tokenizer"] = Named("tokenizer")
    return Call(
        family, "float32" if rng.random() < 0.7 else rng.choice(DTYPES), lengths, rng.randrange(50),
        rng.random() < 0.9, _via(rng, stock, keys), keys,
    )  # fmt: skip


def _lengths(rng: Random) -> tuple[int, ...] | None:
    if rng.random() < 0.02:
        return None
    return tuple(rng.randint(0 if rng.random() < 0.05 else 1, 7) for _ in range(rng.choice([1, 1, 2, 3])))


def _strategy(rng: Random, stock: bool) -> dict[str, Any]:
    if not stock and rng.random() < 0.4:
        cls = rng.choice(components(Kind.STRATEGIES, False))
        found = {key: value for key, value in _params(cls, rng).items() if key not in STATED}
        if cls.name == "assisted_generation":
            found.pop("prompt_lookup_num_tokens", None)
            if found.pop("assistant_early_exit", 1) % 3:
                found["assistant_model"] = Named("near")
            else:
                found["assistant_early_exit"] = 1
        if cls.name == "constrained_beam_search":
            found.setdefault("force_words_ids", [[7], [9, 8]])
        if cls.name == "step_search":
            found.setdefault("step_search_scorer", Named("prefer_evens"))
        if "do_sample" in cls.Params.model_fields or cls.name in ("greedy_search", "sample"):
            found["do_sample"] = cls.name != "greedy_search" and (cls.name == "sample" or rng.random() < 0.5)
        return {**found, "strategy": cls.name}
    mode: dict[str, Any] = rng.choices([draw for _, draw in MODES], [weight for weight, _ in MODES])[0](rng)
    return mode


def _consistent(keys: dict[str, Any], rng: Random) -> dict[str, Any]:
    """What keys need beside them, and values that go together, so that most calls are not refused."""
    keys = {key: value for key, value in keys.items() if value is not None}
    if NEEDS_EOS & keys.keys():
        keys.setdefault("eos_token_id", 7)
    for key, more in COMPANIONS.items():
        if key in keys:
            keys = {**more, **keys}
    for least, most in ORDERED:
        if least in keys and most in keys and keys[least] > keys[most]:
            keys[least], keys[most] = keys[most], keys[least]
    if "num_beam_groups" in keys:
        keys["num_beams"] = keys["num_beam_groups"] * rng.choice([1, 2]) if keys["num_beam_groups"] > 1 else 2
    beams = keys.get("num_beams", 4 if "beam" in str(keys.get("strategy")) else 1)
    if "num_return_sequences" in keys and not (keys.get("do_sample") and beams == 1):
        keys["num_return_sequences"] = min(beams, keys["num_return_sequences"])
    if {"force_words_ids", "constraints"} & keys.keys():
        keys["max_new_tokens"] = 10
    return keys


def _component(rng: Random, stock: bool, rows: int, keys: Mapping[str, Any]) -> dict[str, Any]:
    """One further component by its parameters, or by its name where it has none that are set."""
    if not stock and "watermark" not in keys and rng.random() < 0.08:
        cls = rng.choice(components(Kind.WATERMARKERS, False))
        return {**_params(cls, rng), "watermark": cls.name}
    if not stock and rng.random() < 0.04:
        return {"processors": [Named("double")]}
    kind = Kind.PROCESSORS if rng.random() < 0.8 else Kind.CRITERIA
    cls = rng.choice(components(kind, stock))
    found = _params(cls, rng)
    for key in ("row_max_new_tokens", "row_min_new_tokens"):
        if key in found:
            found[key] = [rng.randint(1, 9) for _ in range(rows)]
    return found or ({} if stock else {kind.argument: [*keys.get(kind.argument, ()), cls.name]})


def _params(cls: Any, rng: Random) -> dict[str, Any]:
    fields = cls.Params.model_fields
    chosen = [key for key, info in fields.items() if info.is_required() or len(fields) < 3 or rng.random() < 0.7]
    found = {key: valid(key, fields[key], rng) for key in chosen}
    return {key: value for key, value in found.items() if value is not None}


def _via(rng: Random, stock: bool, keys: Mapping[str, Any]) -> str:
    if rng.random() < 0.85 or "num_beams" in keys:
        return "generate"
    return "streamer" if stock or "tokenizer" in keys else rng.choice(["streamer", "stream"])
