"""llguidance behind the protocol of `engines`.

Regexes, JSON schemas, Lark grammars in llguidance's dialect (`start` is the root), GBNF translated to it by
llguidance itself, and choices as a Lark alternative.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counted import check_size
from .exact import closed, dated, spelled, subschemas
from .gbnf import plain
from .matchers import Vocabulary, Words, mask_of
from .requests import Wanted
from .schemas import check_exact

llguidance: Any = import_module("llguidance")


BY_LETTER = 'nrbtf\\"'
"""The escapes of JSON without those by number."""
_LISTED = frozenset({"properties", "patternProperties"})

Bytes = NDArray[np.uint8]


class Matcher:
    """See `engines.Matcher`.

    Attributes:
        grammar: what it is a matcher of.
        firsts: `[vocab]`: the first byte of each token, for a vocabulary that lacks bytes; else None.
    """

    def __init__(self, inner: Any, grammar: Compiled) -> None:
        self.inner, self.grammar, self.firsts = inner, grammar, grammar.firsts

    def fill(self, words: Words) -> None:
        if self.inner.is_stopped():  # complete, and nothing may follow, or it has given up
            words[:] = 0
        else:
            self.inner.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            if self.inner.is_error():
                words[:] = 0
                self.grammar.spent = True
            elif self.firsts is not None:
                self._correct(words, self.firsts)

    def _correct(self, words: Words, firsts: Bytes) -> None:
        """Leave only tokens that are one.

        Where text must come that no token begins, llguidance goes on behind it; then the first or the last token of
        its mask is none that may come next, which is looked at alone.
        """
        places = np.flatnonzero(words)
        if not len(places):
            return
        low, high = int(words[places[0]]) & 0xFFFFFFFF, int(words[places[-1]]) & 0xFFFFFFFF
        ends = int(places[0]) * 32 + (low & -low).bit_length() - 1, int(places[-1]) * 32 + high.bit_length() - 1
        if all(self.inner.validate_tokens([token]) for token in ends):
            return
        forced = self.inner.compute_ff_bytes()
        allowed = np.unpackbits(words.view(np.uint8), count=len(firsts), bitorder="little").astype(bool)
        if forced:
            allowed &= firsts == forced[0]
        words[:] = mask_of((i for i in allowed.nonzero()[0].tolist() if self.inner.validate_tokens([i])), len(words))

    def advance(self, token: int) -> bool:
        return int(self.inner.try_consume_tokens([token])) == 1

    def back(self, count: int) -> None:
        if count and not self.inner.rollback(count):
            raise RuntimeError(f"llguidance cannot go back {count} tokens: {self.inner.get_error()}")

    def copy(self) -> Matcher:
        return Matcher(self.inner.deep_copy(), self.grammar)

    @property
    def complete(self) -> bool:
        return bool(self.inner.is_accepting())

    @property
    def surrender(self) -> str:
        said = str(self.inner.get_error()).partition("\n")[0]  # the rest is the state, with the whole grammar
        return said if said.startswith("lexer error") else ""  # one of the parser tells of rules that never end


class Compiled:
    """See `engines.Compiled`.

    Attributes:
        spent: whether its states have become too many. All matchers of one compilation share and add to them, so that
            none of them goes on; the next matcher is of another.
    """

    def __init__(self, compile_again: Callable[[], Any], firsts: Bytes | None) -> None:
        self._compile, self.firsts = compile_again, firsts
        self._root, self.spent = compile_again(), False

    def matcher(self) -> Matcher:
        if self.spent:
            self._root, self.spent = self._compile(), False
        return Matcher(self._root.deep_copy(), self)


class Compiler:
    """See `engines.Compiler`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens(vocabulary)), n_vocab=vocabulary.size, eos_token=vocabulary.ends[0]
        )
        single = {text for text in vocabulary.texts if len(text) == 1}
        firsts = np.array([text[0] if text else 0 for text in vocabulary.texts], dtype=np.uint8)
        self.firsts = firsts if len(single) < 256 else None

    def compile(self, wanted: Wanted, whitespace: bool) -> Compiled:
        source = self._source(wanted, whitespace)

        def compiled() -> Any:
            matcher = llguidance.LLMatcher(self.tokenizer, source, log_level=0)
            if matcher.is_error():
                raise ValueError(matcher.get_error())
            return matcher

        return Compiled(compiled, self.firsts)

    def _source(self, wanted: Wanted, whitespace: bool) -> Any:
        new = llguidance.LLMatcher
        if wanted.kind == "regex":
            check_size(wanted.text)  # far beyond, its own bounds end the decoding
            return new.grammar_from_regex(wanted.text)
        if wanted.kind == "json_schema":
            check_exact(wanted.schema)
            schema = spelled(dated(wanted.schema), "text")
            whole = closed(schema)
            overrides: dict[str, Any] = {"whitespace_flexible": whitespace}
            if not whitespace:
                overrides |= {"item_separator": ",", "key_separator": ":"}
            if _open(whole):
                overrides["json_allowed_escapes"] = BY_LETTER
            if any(isinstance(part, dict) and "oneOf" in part for _, part in subschemas(schema, "$")):
                # Parts that exclude each other only once they are closed are refused as they were written.
                matcher = new(self.tokenizer, new.grammar_from_json_schema(json.dumps(schema), overrides=overrides))
                if matcher.is_error():
                    raise ValueError(matcher.get_error())
            return new.grammar_from_json_schema(json.dumps(whole), overrides=overrides)
        if wanted.kind == "ebnf":
            return new.grammar_from_lark(import_module("llguidance.gbnf_to_lark").gbnf_to_lark(plain(wanted.text)))
        if wanted.kind == "lark":
            return new.grammar_from_lark(wanted.text)
        return new.grammar_from_lark(
            "start: "
            + " | ".join(json.dumps(one, ensure_ascii=False).replace("\x7f", "\\u007f") for one in wanted.choices)
        )


def _open(schema: dict[str, Any]) -> bool:
    """Whether objects may have further names than those that are listed or match a pattern.

    In further names llguidance allows any character as its number, and so the listed ones as well: `\\u0061` beside `a`.

    Raises:
        ValueError: characters that JSON writes by number alone are named, which then cannot be written.
    """
    parts = [part for _, part in subschemas(schema, "$") if isinstance(part, dict)]
    if all(part.get("additionalProperties") is False for part in parts if part.keys() & _LISTED):
        return False
    if found := re.search(r"\\u00[01][0-9a-f]|\x7f", json.dumps(schema, ensure_ascii=False)):
        raise ValueError(
            f"it names {found[0]!r}, and its objects are open to further names, in which characters by number are not "
            'held; close them with "additionalProperties": false'
        )
    return True


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
