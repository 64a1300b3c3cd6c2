"""Rows as text: the bytes of tokens, phrases found token by token, and what processors keep that take text back.

Names only, each imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .boundaries import CLOSING, SENTENCE_END, SENTENCE_SIGNS, Boundaries
    from .phrases import (
        TEXTLESS,
        PhraseTable,
        PhraseTracker,
        byte_automaton,
        phrase_table,
        read_tokens,
        simplified,
    )
    from .retries import Retries, taken_back
    from .token_states import TokenStates
    from .tokenizer_cache import TokenizerCache
    from .vocabulary_bytes import plain_bytes, token_bytes

__all__ = [
    # tokens
    "token_bytes",
    "plain_bytes",
    "TokenizerCache",
    # phrases
    "phrase_table",
    "PhraseTable",
    "PhraseTracker",
    "TEXTLESS",
    "byte_automaton",
    "read_tokens",
    "simplified",
    # steps and sentences
    "Boundaries",
    "SENTENCE_END",
    "SENTENCE_SIGNS",
    "CLOSING",
    # going back
    "TokenStates",
    "Retries",
    "taken_back",
]

_MODULES = {
    "boundaries": "Boundaries SENTENCE_END SENTENCE_SIGNS CLOSING",
    "phrases": "phrase_table PhraseTable PhraseTracker TEXTLESS byte_automaton read_tokens simplified",
    "retries": "Retries taken_back",
    "vocabulary_bytes": "token_bytes plain_bytes",
    "token_states": "TokenStates",
    "tokenizer_cache": "TokenizerCache",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
