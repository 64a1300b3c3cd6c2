"""Where drafts come from, as transformers' flags say it; a call names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import genmode

SOURCES = ("assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "use_mtp")


def given(call: Mapping[str, Any]) -> list[str]:
    """The sources that a call names."""
    return [key for key in SOURCES if call.get(key) not in (None, False)]


def one_source(name: str, call: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse a call that names no source of drafts, several, or one of another strategy."""
    named = given(call)
    if len(named) > 1:
        raise genmode.ParameterError(f"{' and '.join(named)} each say where drafts come from; give one of them")
    if not named or named[0] not in allowed:
        raise genmode.ParameterError(
            f"strategy {name!r} needs one of {', '.join(allowed)} to know where drafts come from, or draft= with the "
            "name of a drafter" + (f", not {named[0]}" if named else "")
        )


def refuse_others(name: str, call: Mapping[str, Any], own: str | None) -> None:
    """Refuse a call that names a drafter and a source that it does not draft from; `own` is the one that it does."""
    others = [key for key in given(call) if key != own]
    if others:
        raise genmode.ParameterError(
            f"{' and '.join(others)} and drafter {name!r} each say where drafts come from; leave one out"
        )
