"""A smaller call that breaks the same promise: keys are left out and values made plain for as long as it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .call import Call
from .promises import Verdict, verdict

MOST_RUNS = 120


def shrunk(call: Call, found: Verdict, most: int = MOST_RUNS) -> tuple[Call, Verdict]:
    """The smallest call that was found in so many runs, and how it went."""
    runs, smaller = 0, True
    while smaller:
        smaller = False
        for candidate in simpler(call):
            runs += 1
            if runs > most:
                return call, found
            told = verdict(candidate)
            if (told.promise, told.kind.split()[:1]) == (found.promise, found.kind.split()[:1]) or (
                told.promise == found.promise not in ("errors", "time")
            ):
                call, found, smaller = candidate, told, True
                break
    return call, found


def simpler(call: Call) -> Iterator[Call]:
    """Calls that are simpler by one thing each, the greatest first."""
    for key in call.keys:
        yield call.with_keys({other: value for other, value in call.keys.items() if other != key})
    plain = Call()
    for name in ("via", "masked", "family", "dtype", "text"):
        if getattr(call, name) != getattr(plain, name):
            yield replace(call, **{name: getattr(plain, name)})
    if call.lengths is not None:
        yield from _fewer(call)
    for key, value in call.keys.items():
        for other in plainer(value):
            yield call.with_keys({**call.keys, key: other})


def _fewer(call: Call) -> Iterator[Call]:
    lengths = call.lengths or ()
    for row in range(len(lengths)):
        if len(lengths) > 1:
            seeds = call.keys.get("seed")
            keys = {**call.keys, "seed": [*seeds[:row], *seeds[row + 1 :]]} if isinstance(seeds, list) else call.keys
            yield replace(call, lengths=(*lengths[:row], *lengths[row + 1 :]), keys=keys)
        if lengths[row] > 1:
            yield replace(call, lengths=(*lengths[:row], lengths[row] - 1, *lengths[row + 1 :]))


def plainer(value: Any) -> Iterator[Any]:
    """Values of the same type that are shorter or smaller."""
    if isinstance(value, (list, tuple)) and len(value) > 1:
        for index in range(len(value)):
            yield type(value)([*value[:index], *value[index + 1 :]])
    elif isinstance(value, (list, tuple)) and value:
        yield from (type(value)([one]) for one in plainer(value[0]))
    elif isinstance(value, dict) and len(value) > 1:
        for key in value:
            yield {other: one for other, one in value.items() if other != key}
    elif isinstance(value, int) and not isinstance(value, bool) and 1 < value < 1000:
        yield value // 2
        yield value - 1
