"""The order of these processors within their stages, transformers' own where it has one.

It decides only among those that are not independent: a forced token overrules what is banned before it, and
is overruled by what is suppressed after it.
"""

from __future__ import annotations

PENALTIES = (
    "encoder_repetition_penalty",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "dry",
)

CONSTRAINTS = (
    "no_repeat_ngram",
    "encoder_no_repeat_ngram",
    "bad_words",
    "banned_phrases",
    "min_length",
    "min_new_tokens",
    "row_min_new_tokens",
    "prefix_allowed_tokens",
    "forced_bos",
    "forced_eos",
    "remove_invalid_values",
    "exponential_decay_length",
    "suppress_tokens",
    "suppress_tokens_at_begin",
    "text_length",
    "thinking_budget",
)


def preceding(name: str) -> tuple[str, ...]:
    """Those of the same stage that run before it."""
    stage = PENALTIES if name in PENALTIES else CONSTRAINTS
    return stage[: stage.index(name)]
