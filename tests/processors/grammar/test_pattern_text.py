"""Patterns written anew, against Python's own reading of them."""

from __future__ import annotations

import json
import re

import pytest

from genmode_processors.grammar.pattern_text import written

from .support import ENGINES, needs, takes

PATTERNS = [
    "a", "^a", "a$", "^a$", "^a|b$", "(^a|b)", "^(a|b)$", "", "^$", "^[^a]$", '^"$', "^\\\\$", "^[!-~]{2}$", "^[ -~]+$", "^\\n?a$", "^.$",
    "^[&~-]$", "^\\u00e9$", "^(?:ab?){2}$", "^a{0}b$", "^[\\x00-\\x1f]$", '^[^"]*$', "^[^\\\\]$", "^[\\x00-!]|\\x01$", "^\\x7f$", "^a(b|c)*$", "a+b", "^[a-c]{2,3}",
]  # fmt: skip
VALUES = [
    "", "a", "b", "c", "ab", "aab", "abc", "xay", "é", '"', "\\", "\\n", "\n", "\na", "\t", "\x01", "\x7f", " ", " a", "&", "~", "-", "aa",
    'a"', "ba", "bb", "abb", "🐲", "[", "^", "]",
]  # fmt: skip
TEXTS = [json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for value in VALUES]
BY_NUMBER = [text.replace('\\"', "\\u0022") for text in TEXTS]
NO_JSON = ['"""', '"\\"', '"\n"', '"\\x"', '"\\']


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_python_reads_it(pattern: str) -> None:
    plain = re.compile(written(pattern, "text"), re.S)
    inside = re.compile(f'"{written(pattern, "json")[1:-1]}"', re.S)
    for value, text in zip(VALUES, TEXTS, strict=True):
        meant = re.search(pattern.replace("$", "\\Z"), value) is not None
        assert (plain.fullmatch(value) is not None) == meant, value
        assert (inside.fullmatch(text) is not None) == meant, value
    assert not [text for text in NO_JSON if inside.fullmatch(text)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_engines_hold_it_within_json(engine: str, pattern: str) -> None:
    needs(engine)
    try:
        found = takes({"type": "string", "pattern": pattern}, engine, TEXTS + BY_NUMBER + NO_JSON)
    except ValueError as error:
        if engine != "lm-format-enforcer" or not re.search("white space|JSON escapes|is .* alone", str(error)):
            raise
        return
    short, by_number, none = found[: len(VALUES)], found[len(VALUES) : 2 * len(VALUES)], found[2 * len(VALUES) :]
    assert not any(none)
    for value, *either in zip(VALUES, short, by_number, strict=True):
        took = any(either)
        meant = re.search(pattern.replace("$", "\\Z"), value) is not None
        beyond = re.search(r'["\\]|[^ -~]', value)  # lm-format-enforcer writes no escapes, and ASCII alone
        assert took == meant or (beyond and not took and engine == "lm-format-enforcer"), value


def test_size_is_bounded() -> None:
    assert written("^a{9999}$", "text") == "^(?:a{9999})$"
    with pytest.raises(ValueError, match="written out; at most"):
        written("((a{99}){99}){99}", "text")


def test_anchors_in_the_middle() -> None:
    for pattern in ("a^b", "(^a|b)c", "a($|b)c"):
        with pytest.raises(ValueError, match="in its middle"):
            written(pattern, "json")


def test_what_json_escapes_and_an_engine_does_not() -> None:
    assert re.fullmatch(written('^["a]$', "unescaped"), "a")
    assert not re.fullmatch(written('^["a]$', "unescaped"), '"')
    with pytest.raises(ValueError, match="JSON escapes"):
        written('^a?"$', "unescaped")
