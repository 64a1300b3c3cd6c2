"""Schemas as one whole and to the letter: texts that engines take, and do not, as an independent validator judges."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest

import genmode
from genmode_processors.grammar.exact import PATTERNS, closed, spelled
from genmode_processors.grammar.schemas import check_exact

from .support import ENGINES, generate, needs, takes

WHOLE: dict[str, Any] = {"type": "integer"}
A = {"properties": {"a": WHOLE}, "required": ["a"]}
B = {"properties": {"b": WHOLE}, "required": ["b"]}
C = {"properties": {"c": WHOLE}, "required": ["c"]}
TEXTS = [
    "{}", '{"a":1}', '{"b":1}', '{"a":1,"b":2}', '{"a":1,"c":2}', '{"a":1,"b":"x"}', '{"a":"x","b":1}', '{"b":1,"c":2}',
    '{"a":1,"b":2,"c":3}',
]  # fmt: skip
TOGETHER = {
    "anyOf": {"type": "object", **A, "anyOf": [B, C]},
    "$ref": {"$ref": "#/$defs/a", **B, "$defs": {"a": {"type": "object", **A}}},
    "allOf": {"type": "object", "allOf": [A, B]},
    "allOf beside": {"type": "object", **A, "allOf": [B]},
    "anyOf and allOf": {"type": "object", "anyOf": [A, B], "allOf": [{"anyOf": [B, C]}]},
    "anyOf of $ref": {
        "type": "object", **A, "anyOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/c"}], "$defs": {"b": B, "c": C},
    },
    "required alone": {"type": "object", **A, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
}  # fmt: skip


@pytest.mark.parametrize("name", TOGETHER)
def test_keywords_beside_each_other_hold_together(name: str) -> None:
    needs("llguidance")
    jsonschema = pytest.importorskip("jsonschema")
    judge = jsonschema.Draft202012Validator(TOGETHER[name])
    found = takes(TOGETHER[name], "llguidance", TEXTS)
    assert any(found)
    fitting = [judge.is_valid(json.loads(text)) for text in TEXTS]
    assert not [text for text, took, fits in zip(TEXTS, found, fitting, strict=True) if took and not fits]
    assert found[3] == fitting[3]  # the keys that every part asks for


@pytest.mark.parametrize("engine", ["xgrammar", "outlines-core", "lm-format-enforcer"])
@pytest.mark.parametrize("name", ["anyOf", "$ref", "allOf"])
def test_other_engines_refuse_them(engine: str, name: str) -> None:
    needs(engine)
    with pytest.raises(genmode.ParameterError, match=r"anyOf|\$ref|allOf"):
        generate(TOGETHER[name], 1, engine)


def test_closed_as_one_whole() -> None:
    no = {"additionalProperties": False}
    assert closed({"properties": {"a": A}}) == {"properties": {"a": A | no}, **no}
    assert closed({"properties": {}, "additionalProperties": True}) == {"properties": {}, "additionalProperties": True}
    assert closed({"anyOf": [A, B]}) == {"anyOf": [A | no, B | no]}
    for schema in (A | {"anyOf": [B, C]}, {"allOf": [A, B]}, A | {"$ref": "#/$defs/b", "$defs": {"b": B}}, {"not": A}):
        assert closed(schema) == schema
    assert "additionalProperties" not in A


def test_days_are_those_of_the_calendar() -> None:
    pattern = re.compile(PATTERNS["date"])
    for year in (1, 4, 96, 100, 400, 1896, 1900, 1999, 2000, 2004, 2016, 2023, 2024, 2100, 2400, 9999):
        for month in range(14):
            for day in range(33):
                text = f"{year:04}-{month:02}-{day:02}"
                try:
                    datetime.date.fromisoformat(text)
                except ValueError:
                    assert not pattern.search(text), text
                else:
                    assert pattern.search(text), text


@pytest.mark.parametrize("engine", ["llguidance", "xgrammar", "outlines-core"])
def test_dates_and_times(engine: str) -> None:
    needs(engine)
    days = ["2023-02-28", "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "2023-04-31"]
    right = [True, True, False, False, True, False]
    assert takes({"type": "string", "format": "date"}, engine, [f'"{day}"' for day in days]) == right
    moments = [f'"{day}T23:59:59Z"' for day in days]
    assert takes({"type": "string", "format": "date-time"}, engine, moments) == right
    times = ['"23:59:59Z"', '"23:59:59.5+01:00"', '"24:00:00Z"', '"12:00:60Z"', '"12:00:00"']
    assert takes({"type": "string", "format": "time"}, engine, times) == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "integer", "minimum": 2**53 + 1}, "minimum"),
        ({"type": "integer", "exclusiveMaximum": -(2**63)}, "exclusiveMaximum"),
        ({"type": "integer", "multipleOf": 10**17}, "multipleOf"),
        ({"const": 2**53 + 1}, "const"),
        ({"enum": [{"a": [2**60]}]}, "enum"),
        ({"type": "object", "additionalProperties": WHOLE, "minProperties": 2}, "minProperties"),
        ({"type": "string", "format": "hostname"}, "hostname"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "contentEncoding": "base64"}, "contentEncoding"),
    ],
)
def test_what_no_engine_holds_is_named(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_exact({"type": "array", "items": schema} | {key: schema[key] for key in schema.keys() & {"$schema"}})


@pytest.mark.parametrize("pattern", [r"^\W$", r"\bword\b", "(?=a)", r"(a)\1"])
def test_patterns_that_libraries_read_differently_are_named(pattern: str) -> None:
    for schema in ({"type": "string", "pattern": pattern}, {"type": "object", "patternProperties": {pattern: WHOLE}}):
        with pytest.raises(ValueError, match=r"\$\.items: the pattern"):
            spelled({"type": "array", "items": schema}, "text")


@pytest.mark.parametrize("engine", ENGINES)
def test_names_are_the_same_however_they_are_spelled(engine: str) -> None:
    needs(engine)
    texts = ['{"a":1}', '{"a":"x"}', r'{"\u0061":"x"}', r'{"\u0061":1}', '{"b":"x"}']
    for closed_to in ({"additionalProperties": {"type": "string"}}, {"additionalProperties": True}, {}):
        try:
            found = takes({"type": "object", "properties": {"a": WHOLE}} | closed_to, engine, texts)
        except ValueError as error:
            if not re.search(r"spelled|does not hold|commas", str(error)):
                raise
        else:
            assert found[:4] == [True, False, False, False]


def test_patterns_of_names_hold_however_names_are_spelled() -> None:
    needs("llguidance")
    texts = ['{"f":1}', '{"f":"x"}', r'{"\u0066":"x"}', r'{"\n":1}', r'{"\n":"x"}', r'{"\u000a":"x"}']
    for pattern in ("^f", "^[f\\n]"):
        found = takes({"type": "object", "patternProperties": {pattern: WHOLE}}, "llguidance", texts)
        assert found == [True, False, False, True, pattern == "^f", False]
    with pytest.raises(ValueError, match="open to further names"):
        takes({"type": "object", "properties": {"\x01": WHOLE}, "additionalProperties": True}, "llguidance", texts)


@pytest.mark.parametrize("engine", ["xgrammar", "outlines-core", "lm-format-enforcer"])
@pytest.mark.parametrize(
    "step", [{"type": "integer", "multipleOf": 1.5}, {"type": "number", "multipleOf": 2}, {"multipleOf": 2}]
)
def test_steps_of_other_than_integers_are_named(engine: str, step: dict[str, Any]) -> None:
    needs(engine)
    with pytest.raises(ValueError, match="multipleOf"):
        takes(step, engine, [])


def test_white_space_that_an_engine_loses_count_of() -> None:
    needs("lm-format-enforcer")
    for schema in (
        {"type": "string", "pattern": "^[ a]{2}$"},
        {"enum": [" a"]},
        {"enum": ["a  b"]},
        {"type": "string", "pattern": "b"},
    ):
        with pytest.raises(ValueError, match="white space"):
            takes(schema, "lm-format-enforcer", [])
    inside = {"type": "string", "pattern": "^a[ a]{2}$"}
    assert takes(inside, "lm-format-enforcer", ['"a a"', '"aa "', '"a a "', '"aaa"']) == [True, True, False, True]


@pytest.mark.parametrize("engine", ["llguidance", "xgrammar", "lm-format-enforcer"])
def test_arrays_and_objects_of_anything(engine: str) -> None:
    needs(engine)
    texts = ["[]", "[1,2]", '["a",null,3]', "{}", '{"a":1,"b":2}']
    assert takes({"type": "array"}, engine, texts) == [True, True, True, False, False]
    assert takes({"type": "object"}, engine, texts) == [False, False, False, True, True]
    assert takes({"type": ["array", "object"]}, engine, texts) == [True] * 5


@pytest.mark.parametrize("kind", ["array", "object"])
def test_an_engine_that_writes_them_out_refuses_them(kind: str) -> None:
    needs("outlines-core")
    with pytest.raises(ValueError, match=f"the type {kind} and does not say of what"):
        takes({"type": "array", "items": {"type": kind}}, "outlines-core", [])


def test_what_is_just_held() -> None:
    needs("llguidance")
    most = 2**53
    check_exact({"const": most})
    texts = [str(most - 1), str(most), str(most + 1)]
    assert takes({"type": "integer", "maximum": most}, "llguidance", texts) == [True, True, False]
    assert takes({"type": "integer", "minimum": most}, "llguidance", texts) == [False, True, True]
    twice = ['{"a":1,"b":2}', '{"a":1,"a":2}', '{"a":1}']
    both = {"type": "object", "properties": {"a": WHOLE, "b": WHOLE}, "required": ["a", "b"], "minProperties": 2}
    assert takes(both, "llguidance", twice) == [True, False, False]
