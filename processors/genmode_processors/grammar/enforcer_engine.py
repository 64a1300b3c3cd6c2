"""lm-format-enforcer behind the protocol of `engines`.

Regexes, JSON schemas and choices. Its parsers go character by character and do not change, so that going back and
copying cost nothing. They are written in Python and walk the tree of tokens at each new state, which makes this
the slowest engine. It knows characters, not bytes: in regexes and JSON a token that is part of a character is never
allowed, so a grammar that names such a character is refused. Choices are given to it byte by byte.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import import_module
from typing import Any

from ..counted import check_size
from ..patterns import firsts, read
from .bounds import apart
from .exact import spelled, subschemas
from .matchers import Vocabulary, Words
from .pattern_text import whole
from .requests import Wanted
from .schemas import BASIC, Held, check_schema

lmformatenforcer: Any = import_module("lmformatenforcer")

NAME = "lm-format-enforcer"
HELD = Held(
    (BASIC | {"pattern"}) - {"prefixItems", "const"},
    types=frozenset({"string", "boolean", "null", "array", "object"}),
    optional=False,
    escapes=False,
)
SPACES = 12  # in a row; else 1, since it counts those inside of strings as well
"""White space in a row where JSON may have any."""


class Compiled:
    """See `engines.Compiled`."""

    def __init__(self, enforcer: Any, parser: Any, texts: dict[int, str]) -> None:
        self.enforcer, self.parser, self.texts = enforcer, parser, texts

    def matcher(self) -> Matcher:
        return Matcher(self, [(self.parser, None)])


class Matcher:
    """See `engines.Matcher`.

    Attributes:
        states: the parser behind each token, and its mask once that was asked for.
    """

    def __init__(self, grammar: Compiled, states: list[tuple[Any, Words | None]]) -> None:
        self.grammar, self.states = grammar, states

    def fill(self, words: Words) -> None:
        words[:] = self._mask()

    def _mask(self) -> Words:
        parser, mask = self.states[-1]
        if mask is None:
            enforcer = self.grammar.enforcer
            enforcer.prefix_states.clear()  # the parser of this row is the root of all that is asked
            enforcer.root_parser = parser
            mask = enforcer.get_allowed_tokens([]).allowed_tokens.numpy()
            self.states[-1] = parser, mask
        return mask

    def advance(self, token: int) -> bool:
        parser = self.states[-1][0]
        if not self._mask()[token // 32] >> token % 32 & 1:
            return False
        for character in self.grammar.texts[token]:
            parser = parser.add_character(character)
        self.states.append((parser, None))
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
        return bool(self.states[-1][0].can_end())


class Spelling:
    """The tokens as texts that a parser reads character by character.

    Attributes:
        texts: what each token that may be used adds.
        data: the same, as lm-format-enforcer reads it.
    """

    def __init__(self, texts: dict[int, str], vocabulary: Vocabulary) -> None:
        self.texts = texts
        self.data = lmformatenforcer.TokenEnforcerTokenizerData(
            [(index, text, True) for index, text in texts.items()],
            lambda ids: "".join(texts.get(i, "") for i in ids),
            list(vocabulary.ends), True, vocabulary.size,
        )  # fmt: skip

    def check(self, source: str) -> None:
        """Refuse a grammar that names characters beyond ASCII which no token spells alone.

        Raises:
            ValueError: names the characters.
        """
        beyond = {one for one in source if one > "\x7f"}
        if missing := sorted(beyond - {text for text in self.texts.values() if len(text) == 1}):
            raise ValueError(
                f"it reads characters, not bytes, and no token is {', '.join(missing[:9])} alone; name only characters that are tokens"
            )


class Compiler:
    """See `engines.Compiler`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @functools.cached_property
    def bytes(self) -> Spelling:
        """Bytes, each as the character of its number."""
        texts = {index: text.decode("latin-1") for index, text in enumerate(self.vocabulary.texts) if text}
        return Spelling(texts, self.vocabulary)

    @functools.cached_property
    def characters(self) -> Spelling:
        """Characters, without tokens that are part of one."""
        texts: dict[int, str] = {}
        for index, text in enumerate(self.vocabulary.texts):
            try:
                texts[index] = text.decode()
            except UnicodeDecodeError:
                continue
        return Spelling({index: text for index, text in texts.items() if text}, self.vocabulary)

    @functools.cached_property
    def json(self) -> Spelling:
        """Characters without controls, which lm-format-enforcer would have in strings of JSON.

        Nor with U+007F, which it allows in strings and cannot go on from.
        """
        found = {i: text for i, text in self.characters.texts.items() if not any(c < " " or c == "\x7f" for c in text)}
        return Spelling(found, self.vocabulary)

    def compile(self, wanted: Wanted, whitespace: bool) -> Compiled:
        parser: Any
        if wanted.kind == "regex":
            spelling = self.characters
            spelling.check(wanted.text)
            check_size(wanted.text)
            apart(NAME, [wanted.text])
            parser = lmformatenforcer.RegexParser(wanted.text)
        elif wanted.kind == "json_schema":
            check_schema(wanted.schema, HELD)
            _check_begins(wanted.schema)
            schema = spelled(wanted.schema, "unescaped")
            spelling = self.json
            spelling.check(_named(schema))
            if patterns := [
                part["pattern"][1:-1]
                for _, part in subschemas(schema, "$")
                if isinstance(part, dict) and "pattern" in part
            ]:
                apart(NAME, patterns)
            parser = lmformatenforcer.JsonSchemaParser(schema)
        else:
            spelling = self.bytes
            choices = [one.encode().decode("latin-1") for one in wanted.choices]
            parser = lmformatenforcer.UnionParser([lmformatenforcer.StringParser(one) for one in choices])
        enforcer = lmformatenforcer.TokenEnforcer(spelling.data, parser)
        config = parser.config
        config.max_consecutive_whitespaces = SPACES if whitespace else 1
        config.force_json_field_order = True
        parser.config = config
        return Compiled(enforcer, parser, spelling.texts)


def _named(schema: dict[str, Any]) -> str:
    """All that a schema names; what a negated class names is left out."""
    result: dict[str, Any] = json.loads(json.dumps(schema))
    for _, part in subschemas(result, "$"):
        if isinstance(part, dict) and "pattern" in part:
            part["pattern"] = re.sub(r"\[\^[^\]]*\]", "", part["pattern"])
    return json.dumps(result, ensure_ascii=False)


def _check_begins(schema: dict[str, Any]) -> None:
    """Refuse strings that may begin with white space, or have two in a row: lm-format-enforcer takes it for that of JSON.

    Raises:
        ValueError: names the keyword and where it stands.
    """
    for path, part in subschemas(schema, "$"):
        if isinstance(part, bool):
            continue
        names = [*part.get("properties", {}), *(one for one in part.get("enum", []) if isinstance(one, str))]
        spaces = [one for one in names if one[:1].isspace() or "  " in one]
        begins = firsts(whole(read(part["pattern"]))) if "pattern" in part else ()
        if spaces or any(low <= ord(space) <= high for space in " \t\n\r" for low, high in begins):
            raise ValueError(
                f"{path} has strings with white space at their beginning or in a row, which it loses count of"
            )


engine = Compiler
