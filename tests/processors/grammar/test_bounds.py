"""What a few characters can ask for is refused in time; what fits is compiled."""

from __future__ import annotations

import time
from typing import Any

import pytest

import genmode
from genmode_processors.grammar import bounds

from .support import ENGINES, generate, needs, takes, tokenizer

COUNTERS = "((a{1000}){1000}){1000}"
STATES = "[ab]*a[ab]{30}"
"""Its automaton has 2^30 states."""


def asked(pattern: str, inside: bool) -> dict[str, Any]:
    """A grammar of a pattern, as a regex or within a schema."""
    return {"type": "string", "pattern": f"^{pattern}$"} if inside else {"regex": pattern}


@pytest.mark.parametrize("inside", [False, True], ids=["regex", "schema"])
@pytest.mark.parametrize("engine", ENGINES)
def test_counters_within_counters(engine: str, inside: bool) -> None:
    needs(engine)
    with pytest.raises(ValueError, match="written out; at most"):
        takes(asked(COUNTERS, inside), engine, [])


@pytest.mark.parametrize("regex", ["(a{50}){50}", "(a{0,50}){0,50}b?", "a{2500,99000}"])
def test_what_fits_is_decoded(regex: str) -> None:
    needs("llguidance")
    assert takes({"regex": regex}, "llguidance", ["a" * 2500, "a" * 2499 + "c"]) == [True, False]


@pytest.mark.parametrize("inside", [False, True], ids=["regex", "schema"])
@pytest.mark.parametrize("engine", ["llguidance", "xgrammar"])
def test_engines_that_build_no_automaton(engine: str, inside: bool) -> None:
    needs(engine)
    texts = ["ab" * 20 + "a" * 31, "b" * 31]
    assert takes(asked(STATES, inside), engine, [f'"{text}"' if inside else text for text in texts]) == [True, False]


@pytest.mark.parametrize("inside", [False, True], ids=["regex", "schema"])
@pytest.mark.parametrize("engine", ["outlines-core", "lm-format-enforcer"])
def test_engines_that_build_one_do_it_apart(engine: str, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(engine)
    monkeypatch.setattr(bounds, "SECONDS", 1)
    monkeypatch.setattr(bounds, "MEGABYTES", 512)
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=f"it takes {engine} more than 1 seconds or 512 megabytes"):
        takes(asked(STATES, inside), engine, [])
    assert time.perf_counter() - begin < bounds.WALL
    assert takes(asked("[ab]{2}", inside), engine, ['"ab"' if inside else "ab"]) == [True]


def test_a_schema_whose_regex_doubles_with_each_array(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("outlines-core")
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(60):
        schema = {"type": "array", "items": schema}
    monkeypatch.setattr(bounds, "SECONDS", 1)
    monkeypatch.setattr(bounds, "MEGABYTES", 512)
    with pytest.raises(ValueError, match="it takes outlines-core more than 1 seconds or 512 megabytes"):
        takes(schema, "outlines-core", [])


def test_optional_counters_within_each_other() -> None:
    needs("xgrammar")
    with pytest.raises(ValueError, match="up to 900 in all"):
        takes({"regex": "(a{0,30}){0,30}b"}, "xgrammar", [])
    assert takes({"regex": "(a{0,16}){0,16}b"}, "xgrammar", ["aaab", "b", "a"]) == [True, True, False]


@pytest.mark.parametrize("inside", [False, True], ids=["regex", "schema"])
def test_counters_that_can_be_split_in_many_ways(inside: bool) -> None:
    needs("llguidance")
    grammar, other = asked("((a|aa){0,90}){0,90}b", inside), tokenizer().convert_tokens_to_ids("b")
    message = r"too much for llguidance \(lexer error: too many expressions constructed\).*try another grammar_engine"
    for _ in range(2):  # what a call has used up, the next one has anew
        with pytest.raises(genmode.DecodingError, match=message) as caught:
            generate(grammar, 1, "llguidance", 100, suppress_tokens=[other])
        assert len(str(caught.value)) < 400
        (text,) = generate(grammar, 1, "llguidance", 100, sequence_bias={(other,): 100.0})
        assert text.strip('"') == "b"


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("outlines-core")
    monkeypatch.setattr(bounds, "WALL", 0)
    with pytest.raises(ValueError, match="it takes outlines-core more than"):
        bounds.apart("outlines-core", "a", 1, {b"a": [0]})


def test_what_an_engine_says_is_handed_on() -> None:
    needs("outlines-core")
    with pytest.raises(ValueError, match="Failed to build DFA"):
        bounds.apart("outlines-core", "a(", 1, {b"a": [0]})


@pytest.mark.parametrize("length", [40, 1000])
def test_long_strings_take_no_time(length: int) -> None:
    needs("outlines-core")
    texts = [f'"{"a" * length}"', f'"{"a" * (length + 1)}"', '"\\u0022"', '"\\n"', '"é"', '"""', '"\\"']
    found = takes({"type": "string", "maxLength": length}, "outlines-core", texts)
    assert found == [True, False, True, True, True, False, False]
