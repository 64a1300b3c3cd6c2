"""Schemas: what an engine accepts it holds, by an independent validator; all else it refuses by name."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

import genmode
from genmode_processors.grammar import Grammar, UnmetGrammarWarning
from genmode_processors.grammar.schemas import BASIC, Held, check_schema

from .support import ENGINES, generate, needs

FLAG: dict[str, Any] = {"type": "boolean"}
NONE: dict[str, Any] = {"type": "null"}
TREE = {
    "type": "object",
    "properties": {"v": FLAG, "k": {"anyOf": [NONE, {"$ref": "#/$defs/t"}]}},
    "required": ["v", "k"],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "minimum": {"type": "integer", "minimum": 5, "maximum": 40},
    "exclusive": {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 8},
    "float": {"type": "number", "minimum": 0.5, "maximum": 1.5},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 99},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "length": {"type": "string", "minLength": 3, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[a-c]{2,4}$"},
    "pattern and length": {"type": "string", "pattern": "^[a-c]+$", "maxLength": 4},
    "date": {"type": "string", "format": "date"},
    "enum": {"enum": ["a", "é", "b c"]},
    "quotes": {"enum": ["a", '"']},
    "enum of kinds": {"enum": ["a", 1, None, {"b": 2}]},
    "const": {"const": {"x": [1]}},
    "any of": {"anyOf": [FLAG, NONE]},
    "one of": {"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 3}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 9}]},
    "not": {"type": "integer", "minimum": 0, "maximum": 9, "not": {"const": 5}},
    "items": {"type": "array", "items": FLAG, "minItems": 2, "maxItems": 3},
    "unique": {"type": "array", "items": FLAG, "minItems": 2, "maxItems": 3, "uniqueItems": True},
    "contains": {"type": "array", "items": FLAG, "minItems": 1, "maxItems": 2, "contains": {"const": True}},
    "prefix": {"type": "array", "prefixItems": [FLAG, NONE], "items": False, "minItems": 2},
    "optional": {"type": "object", "properties": {"a": FLAG, "b": NONE}, "additionalProperties": False},
    "count": {
        "type": "object",
        "properties": {"a": FLAG, "b": NONE},
        "additionalProperties": False,
        "maxProperties": 1,
    },
    "open": {"type": "object", "properties": {"a": FLAG}, "required": ["a"]},
    "unlisted": {"type": "object", "properties": {"a": FLAG}, "required": ["a", "z"], "additionalProperties": NONE},
    "dependent": {"type": "object", "properties": {"a": NONE, "b": NONE}, "dependentRequired": {"a": ["b"]}},
    "if": {"type": "integer", "minimum": 0, "maximum": 9, "if": {"minimum": 5}, "then": {"multipleOf": 5}},
    "tree": {"$ref": "#/$defs/t", "$defs": {"t": TREE}},
    "types": {"type": ["boolean", "null"]},
}
REFUSED = {
    "llguidance": {"one of", "not", "unique", "contains", "dependent", "if"},
    "xgrammar": {
        "pattern and length", "one of", "all of", "not", "unique", "contains", "unlisted", "dependent", "if",
    },
    "outlines-core": {
        "minimum", "exclusive", "float", "multiple", "pattern and length", "one of", "all of", "not", "unique",
        "contains", "count", "unlisted", "dependent", "if", "tree",
    },
    "lm-format-enforcer": {
        "minimum", "exclusive", "float", "multiple", "integer", "number", "length", "pattern and length", "date",
        "enum", "quotes", "enum of kinds", "const", "one of", "all of", "not", "unique", "contains", "prefix", "optional", "count",
        "unlisted", "dependent", "if",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_accepted_is_held(engine: str, name: str) -> None:
    needs(engine)
    jsonschema = pytest.importorskip("jsonschema")
    grammar = Grammar(grammar={"json_schema": SCHEMAS[name]}, grammar_engine=engine)
    if name in REFUSED[engine]:
        with pytest.raises(genmode.ParameterError, match=r"does not understand this json_schema|begins"):
            generate(grammar, 1)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmetGrammarWarning)
        found = generate(grammar, 24, tokens=60, do_sample=True, top_k=0, seed=list(range(24)))
    whole = [text for text, state in zip(found, grammar.results, strict=True) if state == "complete"]
    assert len(whole) > 6
    for text in whole:
        jsonschema.Draft202012Validator(SCHEMAS[name]).validate(json.loads(text))


@pytest.mark.parametrize("engine", ENGINES)
def test_white_space(engine: str) -> None:
    needs(engine)
    schema = {"type": "object", "properties": {"a": FLAG}, "required": ["a"], "additionalProperties": False}
    compact = {'{"a":true}', '{"a":false}'}
    assert engine == "lm-format-enforcer" or set(generate(schema, 20, engine, do_sample=True)) <= compact
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmetGrammarWarning)
        free = generate(schema, 20, engine, do_sample=True, grammar_whitespace=True, tokens=60, seed=1)
    assert any(set(text) & set(" \n") for text in free)
    assert all(json.loads(text) in ({"a": True}, {"a": False}) for text in free if text.endswith("}"))


def test_where_a_keyword_stands_is_said() -> None:
    deep = {"type": "array", "items": {"anyOf": [FLAG, {"type": "string", "maxLength": 3}]}}
    with pytest.raises(ValueError, match=r"\$\.items\.anyOf\[1\] has maxLength"):
        check_schema(deep, Held(BASIC))
    check_schema(deep, Held(BASIC | {"maxLength"}))


def test_loops() -> None:
    held = Held(BASIC, recursive=False)
    check_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": FLAG}}, held)
    for schema in (SCHEMAS["tree"], {"type": "array", "items": {"$ref": "#"}}):
        with pytest.raises(ValueError, match="contains itself"):
            check_schema(schema, held)
