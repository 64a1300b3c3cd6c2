"""The language itself: characters that tokens spell in parts, alternatives that begin one another, escapes of GBNF."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

import genmode
from genmode_processors.grammar import matchers
from genmode_processors.grammar.gbnf import plain
from genmode_processors.grammar.matchers import OFFERS, compiled
from genmode_processors.grammar.requests import wanted

from .support import ANY_GRAMMAR, ENGINES, generate, needs, takes, tokenizer

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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("regex", [".a", r"[.]\.a", "^ab$", "a|^b$"])
def test_signs_of_regexes(engine: str, regex: str) -> None:
    needs(engine)
    texts = ["ba", ".a", "\na", "..a", "ab", "a", "b", "^ab$", "^b$"]
    try:
        found = takes({"regex": regex}, engine, texts)
    except ValueError:
        if "^" not in regex:
            raise
        return
    assert found == [re.fullmatch(regex, text) is not None for text in texts]


def test_anchors_in_the_middle_of_a_regex() -> None:
    needs("xgrammar")
    for regex in ("a^b", "a$b", "(^a|b)"):
        with pytest.raises(ValueError, match="in its middle"):
            takes({"regex": regex}, "xgrammar", [])


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines are there: one that takes no bounds of numbers, and one behind it that does."""
    needs("llguidance")
    needs("outlines-core")
    by_name = {offer.name: offer for offer in OFFERS}
    monkeypatch.setattr(matchers, "OFFERS", (by_name["outlines-core"], by_name["llguidance"]))


@pytest.mark.usefixtures("two")
def test_auto_goes_on_to_the_next_engine() -> None:
    context: Any = SimpleNamespace(
        tokenizer=tokenizer(), vocab_size=len(tokenizer()), eos_token_ids=[tokenizer().eos_token_id]
    )
    bounded = wanted({"type": "integer", "minimum": 5})
    assert compiled(bounded, "auto", False, context)[2] == "llguidance"
    assert compiled(wanted({"type": "integer"}), "auto", False, context)[2] == "outlines-core"
    for _ in range(2):  # what was refused is known, and refused again
        with pytest.raises(
            genmode.ParameterError, match=r"outlines-core does not understand this json_schema: .*minimum"
        ):
            compiled(bounded, "outlines-core", False, context)


@pytest.mark.usefixtures("two")
def test_auto_says_what_each_engine_said() -> None:
    with pytest.raises(genmode.ParameterError) as caught:
        generate({"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}, 1)
    first, second, hint = str(caught.value).split("; ", 2)
    assert "outlines-core does not understand this json_schema: ValueError: $ has uniqueItems" in first
    assert second.startswith("llguidance does not understand this json_schema: ValueError: ")
    assert hint.startswith("correct it, or choose another engine")


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
