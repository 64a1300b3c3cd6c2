"""xgrammar behind the protocol of `engines`.

Regexes, JSON schemas, GBNF with `root`, Lark with `start`, and choices as a GBNF alternative. Objects have no
properties beside those of the schema (xgrammar's strict mode), in the schema's order.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from importlib import import_module
from typing import Any

from ..counted import PART, check_size, count
from .exact import dated, spelled, subschemas
from .gbnf import plain
from .matchers import Vocabulary, Words, mask_of
from .requests import Wanted
from .schemas import BASIC, NUMBERS, STRINGS, Held, check_schema

xgrammar: Any = import_module("xgrammar")

SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
NESTED = 256
"""At 16 times 16 a token of a text takes 7 ms, and 16 times as long at 30 times 30."""
HELD = Held(
    BASIC | NUMBERS | STRINGS | {"minProperties", "maxProperties"},
    formats=frozenset({"date", "time", "date-time", "uuid"}),
)


class Matcher:
    """See `engines.Matcher`."""

    def __init__(self, inner: Any, surrogates: Surrogates, tokens: list[int]) -> None:
        self.inner, self.surrogates, self.tokens = inner, surrogates, tokens

    def fill(self, words: Words) -> None:
        if not self.inner.fill_next_token_bitmask(words[None], 0):
            words[:] = -1
        if self.tokens and self.surrogates.begins(self.tokens[-1]):
            words &= self.surrogates.others

    def advance(self, token: int) -> bool:
        if self.tokens and self.surrogates.begins(self.tokens[-1]) and self.surrogates.ends(token):
            return False
        taken = bool(self.inner.accept_token(token))
        if taken:
            self.tokens.append(token)
        return taken

    def back(self, count: int) -> None:
        if count:
            self.inner.rollback(count)
            del self.tokens[-count:]

    def copy(self) -> Matcher:
        return Matcher(self.inner.fork(), self.surrogates, list(self.tokens))

    @property
    def surrender(self) -> str:
        return ""

    @property
    def complete(self) -> bool:
        return bool(self.inner.is_completed())


class Surrogates:
    """Keeps the bytes ED A0 to ED BF out, which are no UTF-8 and which xgrammar takes for a character's.

    Attributes:
        others: `[words]`: the tokens that may stand behind ED.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.others = ~mask_of((i for i in range(vocabulary.size) if self.ends(i)), vocabulary.words)

    def begins(self, token: int) -> bool:
        """Whether the token ends in ED."""
        return self.vocabulary.text(token)[-1:] == b"\xed"

    def ends(self, token: int) -> bool:
        """Whether the token begins with A0 to BF."""
        return b"\xa0" <= self.vocabulary.text(token)[:1] <= b"\xbf"


class Compiled:
    """See `engines.Compiled`."""

    def __init__(self, grammar: Any, surrogates: Surrogates) -> None:
        self.grammar, self.surrogates = grammar, surrogates

    def matcher(self) -> Matcher:
        return Matcher(xgrammar.GrammarMatcher(self.grammar), self.surrogates, [])


class Compiler:
    """See `engines.Compiler`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        texts = tuple(b"" if SURROGATE.search(text) else text for text in vocabulary.texts)
        self.vocabulary = dataclasses.replace(vocabulary, texts=texts)
        self.surrogates = Surrogates(vocabulary)

    @functools.cached_property
    def any_text(self) -> Any:
        """The compiler for all but JSON."""
        return _compiler(self.vocabulary)

    @functools.cached_property
    def json(self) -> Any:
        """The compiler for JSON: xgrammar lets strings of bounded length have control characters."""
        return _compiler(self.vocabulary.without_controls())

    def compile(self, wanted: Wanted, whitespace: bool) -> Compiled:
        return Compiled(self._compiled(wanted, whitespace), self.surrogates)

    def _compiled(self, wanted: Wanted, whitespace: bool) -> Any:
        if wanted.kind == "json_schema":
            check_schema(wanted.schema, HELD)
            separators = None if whitespace else (",", ":")
            return self.json.compile_json_schema(
                json.dumps(_adapted(spelled(dated(wanted.schema), "json"))),
                any_whitespace=whitespace,
                separators=separators,
            )
        if wanted.kind == "regex":
            check_size(wanted.text)
            if (nested := count(wanted.text).nested) > NESTED:
                raise ValueError(
                    f"it has repetitions between bounds within each other, up to {nested} in all, which take too long at "
                    f"each token; at most {NESTED}"
                )
            return self.any_text.compile_regex(_plain(wanted.text))
        if wanted.kind == "lark":
            return self.any_text.compile_lark(wanted.text)
        if wanted.kind == "ebnf":
            text = plain(wanted.text)
        else:
            text = "root ::= " + " | ".join(json.dumps(one, ensure_ascii=False) for one in wanted.choices)
        return self.any_text.compile_grammar(text)


def _plain(regex: str) -> str:
    """The regex with a `.` that is no line end, which xgrammar takes it for.

    Raises:
        ValueError: an anchor in the middle, which it passes over.
    """
    parts = [found[0] for found in PART.finditer(regex)]
    inner = parts[parts[:1] == ["^"] : len(parts) - (parts[-1:] == ["$"])]
    if {"^", "$"} & set(inner):
        raise ValueError("it has ^ or $ in its middle; let them stand at its beginning and end alone")
    return "".join(r"[^\n]" if part == "." else part for part in inner)


def _adapted(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema written so that xgrammar loses no texts of it.

    In patterns of ASCII alone it drops alternatives with a backslash; an array or object of anything has one
    item at most unless it is said that anything is allowed.
    """
    for _, part in list(subschemas(schema, "$")):
        if isinstance(part, bool):
            continue
        if "\\\\" in (pattern := str(part.get("pattern", ""))):
            part["pattern"] = f"{pattern[:-1]}é{{0}}$"
        if "array" in part.get("type", []) and not part.keys() & {"items", "prefixItems"}:
            part["items"] = {}
        if "object" in part.get("type", []) and not part.keys() & {"properties", "additionalProperties"}:
            part["additionalProperties"] = {}
    return schema


def _compiler(vocabulary: Vocabulary) -> Any:
    info = xgrammar.TokenizerInfo(
        list(vocabulary.texts), xgrammar.VocabType.RAW, vocab_size=vocabulary.size,
        stop_token_ids=list(vocabulary.ends),
    )  # fmt: skip
    return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)


engine = Compiler
