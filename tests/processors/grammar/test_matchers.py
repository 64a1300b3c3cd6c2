"""The language itself: characters that tokens spell in parts, alternatives that begin one another, escapes of GBNF."""

from __future__ import annotations

import re

import pytest

import genmode
from genmode_processors.grammar.gbnf import plain

from .support import ANY_GRAMMAR, ENGINES, generate, needs, takes

CHOICES = [
    ["no", "not sure"],
    ["not sure", "no"],
    ["a", "ab", "abc"],
    ["\U0001f408", "日本", "né", "n"],
    ["a\n", "\x7f", '"\\'],
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_choices_are_all_there(engine: str, choices: list[str]) -> None:
    needs(engine)
    others = [one + "a" for one in choices if one + "a" not in choices] + [one[:-1] for one in choices if one[:-1]]
    texts = [*choices, *others]
    assert takes(choices, engine, texts) == [text in choices for text in texts]


@pytest.mark.parametrize("engine", ["llguidance", "xgrammar", "outlines-core"])
@pytest.mark.parametrize("regex", ["a|ab", "ab|a", "(a|ab)(c|bcd)?", "a+?b??", "a*", "(?:a|aa)+?"])
def test_regexes_are_languages(engine: str, regex: str) -> None:
    needs(engine)
    texts = ["a", "aa", "ab", "aab", "abc", "abcd", "ac", "abb", "b", "c"]
    found = takes({"regex": regex}, engine, texts)
    assert found == [re.fullmatch(regex, text) is not None for text in texts]


def test_regexes_that_may_be_empty_are_whole_or_refused() -> None:
    needs("outlines-core")
    with pytest.raises(ValueError, match="may be empty"):
        takes({"regex": "(a|ab)?"}, "outlines-core", ["ab"])


@pytest.mark.parametrize("engine", ANY_GRAMMAR)
@pytest.mark.parametrize(
    ("grammar", "right", "wrong"),
    [
        (r'root ::= "\x41"', "A", "x41"),
        (r'root ::= "\u00e9\u0041"', "éA", "e9"),
        (r'root ::= "\U0001F600"', "\U0001f600", "U"),
        (r'root ::= "\u0022\u005c\u000a"', '"\\\n', "\\"),
        (r'root ::= "\x01"+', "\x01\x01", "01"),
        (r"root ::= [\u3040-\u309f]+", "ひら", "a"),
        (r"root ::= [\u005d\u005e\u002d]+", "]^-", "\\"),
        (r"root ::= [a&&b]+", "a&b", "&c"),
        (r"root ::= [_a-c]+", "_b", "-"),
        (r"root ::= [\x20a-f]", "f", "\u02af"),
        (r"root ::= [!-/0]+", "!0/", "1"),
        (r"root ::= [/a-{b-|]+", "/b|", "}"),
        (r'root ::= "\x01a"*', "\x01a\x01a", "\x1a"),
        (r"root ::= [^\u0061-\u007a]", "é", "b"),
        ("root ::= [а-я]+ [^a-z]", "при1", "приb"),
        ('root ::= "a" # "\\q" [\n', "a", "b"),
    ],
)
def test_escapes_of_gbnf(engine: str, grammar: str, right: str, wrong: str) -> None:
    needs(engine)
    assert takes({"ebnf": grammar}, engine, [right, wrong]) == [True, False]


@pytest.mark.parametrize(("grammar", "told"), [(r'root ::= "\q"', "no escape"), (r'root ::= "\ud800"', "no character")])
def test_escapes_that_are_none(grammar: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plain(grammar)


@pytest.mark.parametrize("grammar", [{"regex": "日|no"}, {"enum": ["日", "no"]}], ids=["regex", "schema"])
def test_the_enforcer_names_characters_that_no_token_is(grammar: dict[str, object]) -> None:
    needs("lm-format-enforcer")
    with pytest.raises(genmode.ParameterError, match="日"):
        generate(grammar, 1, "lm-format-enforcer")
