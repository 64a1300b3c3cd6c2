"""llguidance behind the protocol of `engines`.

Regexes, JSON schemas, Lark grammars in llguidance's dialect (`start` is the root), GBNF translated to it by
llguidance itself, and choices as a Lark alternative.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np

from .engines import Vocabulary, Words
from .requests import Wanted
from .schemas import closed

llguidance: Any = import_module("llguidance")


class Matcher:
    """See `engines.Matcher`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def fill(self, words: Words) -> None:
        if self.inner.is_stopped():  # complete, and nothing may follow
            words[:] = 0
        else:
            self.inner.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            if self.inner.is_error() or not self._takes(words):
                words[:] = 0

    def _takes(self, words: Words) -> bool:
        """Whether a single token that is allowed is one: llguidance spells text that must come by the tokenizer.

        Where the tokenizer lacks its characters, another token comes out.
        """
        places = np.flatnonzero(words)
        if len(places) != 1:
            return True
        word = int(words[places[0]]) & 0xFFFFFFFF
        token = int(places[0]) * 32 + word.bit_length() - 1
        return bool(word & (word - 1)) or bool(self.inner.validate_tokens([token]))

    def advance(self, token: int) -> bool:
        return int(self.inner.try_consume_tokens([token])) == 1

    def back(self, count: int) -> None:
        if count and not self.inner.rollback(count):
            raise RuntimeError(f"llguidance cannot go back {count} tokens: {self.inner.get_error()}")

    def copy(self) -> Matcher:
        return Matcher(self.inner.deep_copy())

    @property
    def complete(self) -> bool:
        return bool(self.inner.is_accepting())


class Compiled:
    """See `engines.Compiled`."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def matcher(self) -> Matcher:
        return Matcher(self.root.deep_copy())


class Compiler:
    """See `engines.Compiler`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens(vocabulary)), n_vocab=vocabulary.size, eos_token=vocabulary.ends[0]
        )

    def compile(self, wanted: Wanted, whitespace: bool) -> Compiled:
        matcher = llguidance.LLMatcher(self.tokenizer, self._source(wanted, whitespace), log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return Compiled(matcher)

    def _source(self, wanted: Wanted, whitespace: bool) -> Any:
        new = llguidance.LLMatcher
        if wanted.kind == "regex":
            return new.grammar_from_regex(wanted.text)
        if wanted.kind == "json_schema":
            compact: Any = {"whitespace_flexible": whitespace, "item_separator": ",", "key_separator": ":"}
            free: Any = {"whitespace_flexible": True}
            return new.grammar_from_json_schema(
                json.dumps(closed(wanted.schema)), overrides=free if whitespace else compact
            )
        if wanted.kind == "ebnf":
            return new.grammar_from_lark(import_module("llguidance.gbnf_to_lark").gbnf_to_lark(wanted.text))
        if wanted.kind == "lark":
            return new.grammar_from_lark(wanted.text)
        return new.grammar_from_lark(
            "start: " + " | ".join(json.dumps(one, ensure_ascii=False) for one in wanted.choices)
        )


class _Tokens:
    """What `llguidance.TokenizerWrapper` reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        special = [index for index, text in enumerate(vocabulary.texts) if not text]
        # An empty text is no token to llguidance; the mark 0xFF makes it a special one.
        self.tokens = [text or b"\xff<%d>" % index for index, text in enumerate(vocabulary.texts)]
        self.special_token_ids = special
        self.eos_token_id = vocabulary.ends[0]
        self.bos_token_id = None
        self._encode = vocabulary.encode

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._encode(text)
        return ids


engine = Compiler
