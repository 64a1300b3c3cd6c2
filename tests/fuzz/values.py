"""Values of a component's parameters, drawn from the schema of its `Params`: valid ones, and wild ones."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from random import Random
from types import NoneType, UnionType
from typing import Any

from pydantic.fields import FieldInfo

from genmode.testing.harness.models import VOCAB

from .models import Named

WORDS = ("a", "c7", " b", "1", "d4 a")
WILD = (
    float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 1e-45, -1, 0, 1, -0.5, 0.5, 10**4, 2**31, 2**63, 2**70,
    True, "text", "", "5", [], [[]], [-1], [VOCAB], [2**40], [None], (), {}, {(): 1.0}, Named("nothing"), Named("object"),
)  # fmt: skip
FEW = frozenset({
    "num_beams", "num_return_sequences", "num_beam_groups", "max_new_tokens", "max_length", "step_search_rows",
})  # fmt: skip
"""Keys that ask for as much work as they say, so that a huge value is a long call and no fault."""

Drawer = Callable[[Random], Any]


def _tokens(rng: Random, most: int = 3) -> list[int]:
    return [rng.randrange(2, 40) for _ in range(rng.randint(1, most))]


def _lists(rng: Random) -> list[list[int]]:
    return [_tokens(rng) for _ in range(rng.randint(1, 3))]


# Where the schema does not say what a field's values mean, or allows more than a short call can do.
KNOWN: Mapping[str, Drawer] = {
    "amateur_model": lambda rng: Named("near"),
    "anti_expert_model": lambda rng: Named("near"),
    "best_of_scorer": lambda rng: Named("prefer_evens"),
    "banned_phrases": lambda rng: rng.choice([[rng.choice(WORDS)], _lists(rng)]),
    "constraints": lambda rng: None,
    "context_free_ids": lambda rng: Named("other_prompt"),
    "dola_layers": lambda rng: rng.choice(["low", "high", [0], [0, 1]]),
    "early_stopping": lambda rng: rng.choice([True, False, "never"]),
    "exponential_decay_length_penalty": lambda rng: (rng.randrange(5), rng.choice([0.5, 1.01, 1.3])),
    "expert_model": lambda rng: Named("near"),
    "force_words_ids": lambda rng: rng.choice([_lists(rng)[:2], [[_tokens(rng, 2), _tokens(rng, 2)]]]),
    "key": lambda rng: rng.choice([7, 15485863, "secret"]),
    "keys": lambda rng: None,
    "max_characters": lambda rng: rng.randrange(5, 30),
    "max_length": lambda rng: rng.randint(6, 18),
    "max_time": lambda rng: 60.0,
    "min_characters": lambda rng: rng.randrange(20),
    "num_beams": lambda rng: rng.randint(2, 4),
    "num_beam_groups": lambda rng: rng.randint(1, 3),
    "num_return_sequences": lambda rng: rng.randint(1, 3),
    "negative_prompt_attention_mask": lambda rng: None,
    "context_free_attention_mask": lambda rng: None,
    "negative_prompt_ids": lambda rng: rng.choice([None, Named("other_prompt")]),
    "prefix_allowed_tokens_fn": lambda rng: Named("allow_even"),
    "sampling_table_size": lambda rng: rng.choice([1, 64, 1024]),
    "sequence_bias": lambda rng: {tuple(tokens): rng.choice([-5.0, 0.5, 8.0]) for tokens in _lists(rng)},
    "speculation_type": lambda rng: None,
    "stop_regex": lambda rng: rng.choice([["a"], ["c[0-9]", "b"]]),
    "stop_strings": lambda rng: rng.choice([["a"], "c7", ["b", "1"]]),
    "step_search_scorer": lambda rng: Named("prefer_evens"),
    "stop_when": lambda rng: Named("stop_on_sevens"),
    "synthid_beta": lambda rng: None,
    "synthid_delta": lambda rng: None,
    "temperature": lambda rng: rng.choice([0.01, 0.3, 0.7, 1.0, 1.5, 4.0, 50.0]),
    "think_end": lambda rng: rng.choice(["b", [7], [7, 9]]),
    "think_start": lambda rng: rng.choice(["a", [8]]),
    "dry_sequence_breakers": lambda rng: rng.choice([None, ["a"], [7, 8], ["c7", 9]]),
    "vocab_size": lambda rng: None,
    "generator_device": lambda rng: "cpu",
    "top_k": lambda rng: rng.choice([1, 2, 5, 20, 50, VOCAB, 1000]),
}
NEEDS_TOKENIZER = frozenset({
    "banned_phrases", "dry_sequence_breakers", "stop_strings", "stop_regex", "think_start", "think_end",
    "min_characters", "max_characters", "min_sentences", "max_sentences", "token_healing",
})  # fmt: skip


def valid(key: str, info: FieldInfo, rng: Random) -> Any:
    """A value that the schema allows; None for a key to leave out."""
    return KNOWN[key](rng) if key in KNOWN else _of(info.annotation, _bounds(info.metadata), rng)


def wild(key: str, rng: Random) -> Any:
    """A value that may be of any type and size."""
    while True:
        value = rng.choice(WILD)
        if not (key in FEW and isinstance(value, (int, float)) and value > 20):
            return value


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    names = ("gt", "ge", "lt", "le", "min_length")
    return {name: value for one in metadata for name in names if (value := getattr(one, name, None)) is not None}


def _of(kind: Any, bounds: Mapping[str, Any], rng: Random) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        further = [more for one in inner[1:] for more in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return _of(inner[0], {**bounds, **_bounds(further)}, rng)
    if origin in (typing.Union, UnionType):
        return _of(rng.choice([one for one in inner if one is not NoneType]), bounds, rng)
    if origin is typing.Literal:
        return rng.choice(inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return [_of(inner[0], {"ge": 2, "lt": 40}, rng) for _ in range(rng.randint(1, 3))]
    if kind is bool:
        return rng.random() < 0.7
    if kind is int:
        return _integer(bounds, rng)
    if kind is float:
        return _real(bounds, rng)
    raise TypeError(f"no value for {kind} is known; add the parameter to KNOWN")


def _integer(bounds: Mapping[str, Any], rng: Random) -> int:
    low = bounds.get("ge", bounds.get("gt", -3) + 1)
    high = min(bounds.get("le", bounds.get("lt", low + 9) - 1), low + 8)
    return rng.randint(low, high)


def _real(bounds: Mapping[str, Any], rng: Random) -> float:
    """Mostly from inside of the bounds, sometimes at or just within one of them."""
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if rng.random() < 0.1:
        tiny = 1e-6
        ends = [] if low is None else [low if "ge" in bounds else low + tiny]
        ends += [] if high is None or high == float("inf") else [high if "le" in bounds else high - tiny]
        return float(rng.choice(ends or [0.0]))
    low = -2.0 if low is None else low
    high = low + 3.0 if high is None or high == float("inf") else high
    return round(rng.uniform(low + 0.02 * (high - low), high - 0.02 * (high - low)), 3)
