"""Which strategy serves a call: the one that is named, else, where a drafter is, that of drafts, else the one of the mode that transformers tells from the flags.

Of genmode's own strategies that serve the mode (`Strategy.mode`), the one whose flags are set (`Strategy.selected_by`)
serves the call, else the one that is named as the mode. Where the flags of several are set, the one that takes all of
them does, so that it can say which to leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from ..contract import Strategy
from ..contract.component import shown
from ..contract.kinds import Kind
from ..errors import ParameterError
from ..plugins.parameters import flag_defaults
from ..plugins.registry import Registry
from .flag_values import Flags

HOST_FLAGS = ("stop_strings", "token_healing", "low_memory")
"""Flags that the host or its session serves, whatever the strategy."""

ASSISTANT = "assistant_model"
DRAFTED = "assisted_generation"
"""The strategy that serves a call which names a drafter."""


def resolve(
    named: Any, flags: Flags, model: Any, assistant: Any, host: Registry, draft: Any = None
) -> tuple[str | Strategy | type[Strategy], str]:
    """The strategy that serves a call, as a name, class or object, and why it does.

    Args:
        named: the strategy that the call or a config names; None for none.
        flags: those in force.
        model: the model that decodes.
        assistant: the model given to draft, or None.
        host: whose strategies there are.
        draft: the drafter that the call or a config names; None for none.

    Raises:
        ParameterError: `named` is no strategy, or flags ask for strategies of different modes.
    """
    if isinstance(named, (str, Strategy)) or (isinstance(named, type) and issubclass(named, Strategy)):
        return named, "named by the call"
    if named is not None:
        raise ParameterError(
            f"strategy={shown('strategy', named)!r}: give a name, a Strategy class or a Strategy object"
        )
    if draft is not None:
        return DRAFTED, "draft= names a drafter"
    answer = host.hooks().resolve_strategy(flags=flags, model=model, assistant_model=assistant)
    if answer is not None:
        return answer[0], f"chosen by {answer[1]}"
    given = {ASSISTANT: assistant}
    mode = mode_of(flags, assistant)
    strategies: list[Any] = list(host.own(Kind.STRATEGIES))
    selecting = list(dict.fromkeys(key for cls in strategies for key in cls.selected_by))
    found = {key: given.get(key, flags.get(key)) for key in [ASSISTANT, "num_beams", "do_sample", *selecting]}
    found = {key: value for key, value in found.items() if _is_set(key, value)}
    asked = {cls: [key for key in cls.selected_by if key in found] for cls in strategies}
    elsewhere = {key: cls.mode or cls.name for cls, keys in asked.items() for key in keys}
    _refuse_others({k: one for k, one in elsewhere.items() if one != mode and _always_asks(k, found[k])}, found, mode)
    serving = {cls: keys for cls, keys in asked.items() if keys and (cls.mode or cls.name) == mode}
    reasons = ", ".join(_shown(key, value) for key, value in found.items())
    why = f"transformers' mode for {reasons}" if reasons else "transformers' mode without flags"
    return _choice(serving, mode), why


def mode_of(flags: Any, assistant: Any = None) -> str:
    """The mode that transformers tells."""
    return str(transformers.GenerationConfig.get_generation_mode(flags, assistant).value)


def neutral_flags(host: Registry) -> dict[str, Any]:
    """The flags that strategies and the host serve, with the values that make transformers leave them alone."""
    strategies: list[Any] = list(host.own(Kind.STRATEGIES))
    keys = [*HOST_FLAGS, *(key for cls in strategies for key in cls.selected_by)]
    return {key: flag_defaults()[key] for key in keys if key in flag_defaults()}


def _is_set(key: str, value: Any) -> bool:
    default = flag_defaults().get(key)
    return value is not None and value is not False and (default is None or value != default)


def _always_asks(key: str, value: Any) -> bool:
    """Whether a flag asks for the same mode beside greedy search and beside sampling; others need further flags to."""
    assistant = value if key == ASSISTANT else None
    return len({mode_of(Flags({key: value, "do_sample": sample}), assistant) for sample in (False, True)}) == 1


def _refuse_others(strays: Mapping[str, str], found: Mapping[str, Any], mode: str) -> None:
    """Refuse flags that ask for strategies of other modes, `strays`, than the mode that all of `found` make."""
    if not strays:
        return
    these = ", ".join(_shown(key, found[key]) for key in strays)
    others = ", ".join(_shown(key, value) for key, value in found.items() if key not in strays)
    raise ParameterError(
        f"{these} and {others}, which ask for {mode}, contradict each other: {' and '.join(sorted(set(strays.values())))} "
        "takes greedy search or sampling; leave one out"
    )


def _choice(serving: Mapping[Any, list[str]], mode: str) -> str:
    """The name of the strategy that serves a mode, of those whose flags are set."""
    every = {key for keys in serving.values() for key in keys}
    for cls in serving:
        if every <= {*cls.selected_by, *cls.Params.model_fields}:
            return str(cls.name)
    others = [str(cls.name) for cls in serving if cls.name != mode]
    return others[0] if len(others) == 1 else mode


def _shown(key: str, value: Any) -> str:
    return f"{key}={type(value).__name__ if key == ASSISTANT else repr(value)}"
