"""outlines-core behind the protocol of `engines`.

Everything is a regex: a schema is turned into one (recursion up to the depth of 3, objects with the schema's
properties alone, in its order), and a list of choices is an alternative. The states are numbers, so that going
back and copying cost nothing; compiling enumerates all of them beforehand, in a process of its own (see `bounds`).
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import Any

import numpy as np

from ..counted import check_size
from .bounds import apart
from .exact import dated, spelled, subschemas
from .matchers import Vocabulary, Words
from .requests import Wanted
from .schemas import BASIC, STRINGS, Held, check_schema

outlines_core: Any = import_module("outlines_core")

HELD = Held(
    BASIC | STRINGS,
    types=frozenset({"string", "integer", "number", "boolean", "null", "array", "object"}),
    formats=frozenset({"date", "time", "date-time", "uuid"}),
    recursive=False,
)
FREE = r"[ \n\t]*"
WHOLE = r"(?:{})\z"
"""A text matches as a whole: without the end, the first alternative or the laziest repetition that matches hides longer texts."""


class Compiled:
    """See `engines.Compiled`.

    Attributes:
        masks: the mask of each state that was asked for.
    """

    def __init__(self, index: Any, words: int) -> None:
        self.index, self.words = index, words
        self.masks: dict[int, Words] = {}

    def matcher(self) -> Matcher:
        return Matcher(self, [self.index.get_initial_state()])

    def mask(self, state: int) -> Words:
        """`[words]`: which tokens a state allows."""
        known = self.masks.get(state)
        if known is None:
            ids = np.array(self.index.get_allowed_tokens(state) or [], dtype=np.int64)
            known = np.zeros(self.words, dtype=np.uint32)
            np.bitwise_or.at(known, ids // 32, np.uint32(1) << (ids % 32).astype(np.uint32))
            known = self.masks[state] = known.view(np.int32)
        return known


class Matcher:
    """See `engines.Matcher`."""

    def __init__(self, grammar: Compiled, states: list[int]) -> None:
        self.grammar, self.states = grammar, states

    def fill(self, words: Words) -> None:
        words[:] = self.grammar.mask(self.states[-1])

    def advance(self, token: int) -> bool:
        state = self.grammar.index.get_next_state(self.states[-1], token)
        if state is None:
            return False
        self.states.append(state)
        return True

    def back(self, count: int) -> None:
        del self.states[len(self.states) - count :]

    def copy(self) -> Matcher:
        return Matcher(self.grammar, list(self.states))

    @property
    def surrender(self) -> str:
        return ""

    @property
    def complete(self) -> bool:
        return bool(self.grammar.index.is_final_state(self.states[-1]))


class Compiler:
    """See `engines.Compiler`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens: dict[bytes, list[int]] = {}
        for index, text in enumerate(vocabulary.texts):
            if text:
                self.tokens.setdefault(text, []).append(index)
        self.end, self.words = vocabulary.ends[0], vocabulary.words

    def compile(self, wanted: Wanted, whitespace: bool) -> Compiled:
        if wanted.kind == "regex":
            regex = wanted.text
            check_size(regex)
        elif wanted.kind == "json_schema":
            check_schema(wanted.schema, HELD)
            _check_said(wanted.schema)
            schema = json.dumps(_quoted(spelled(_bounded(dated(wanted.schema)), "json")))
            regex = apart("outlines-core: schema", schema, FREE if whitespace else "")
        else:
            regex = "|".join(f"({re.escape(one)})" for one in wanted.choices)
        return Compiled(self._index(regex), self.words)

    def _index(self, regex: str) -> Any:
        try:
            return apart("outlines-core", WHOLE.format(regex), self.end, self.tokens)
        except ValueError as error:
            if "universal start" not in str(error):
                raise
            if len(re.findall(r"[*?+{|]", regex)) > 1:  # one greedy repetition hides nothing
                raise ValueError(
                    "it begins with an anchor, or it may be empty and has more than one repetition or alternative, of "
                    "which outlines-core would lose texts; ask for a character at least"
                ) from error
            return apart("outlines-core", regex, self.end, self.tokens)


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with free strings, and those of a length, as patterns."""
    for _, part in list(subschemas(schema, "$")):
        if (
            isinstance(part, dict)
            and part.get("type") == "string"
            and not part.keys() & {"pattern", "format", "enum", "const"}
        ):
            least, most = part.pop("minLength", 0), part.pop("maxLength", "")
            part["pattern"] = f"^[\\x00-\\u{{10FFFF}}]{{{least},{most}}}$"
    return schema


def _quoted(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with patterns that write a quote by its number.

    Where a quote may stand within a string and ends it as well, outlines-core takes twice as long for each character more.
    """
    for _, part in list(subschemas(schema, "$")):
        if isinstance(part, dict) and "pattern" in part:
            part["pattern"] = part["pattern"].replace(r'\\"', r"\\u0022")
    return schema


def _check_said(schema: dict[str, Any]) -> None:
    """Refuse arrays and objects of anything: as a regex they have thousands of states, for a depth of three.

    Raises:
        ValueError: says where it stands.
    """
    for path, part in subschemas(schema, "$"):
        if isinstance(part, bool):
            continue
        types = part.get("type", [])
        for kind, words in (("array", ("items", "prefixItems")), ("object", ("properties", "additionalProperties"))):
            if kind in ([types] if isinstance(types, str) else types) and not part.keys() & set(words):
                raise ValueError(f"{path} has the type {kind} and does not say of what; give {' or '.join(words)}")


engine = Compiler
