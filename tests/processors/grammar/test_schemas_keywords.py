"""Each keyword and range of values by engine: what is accepted is held by an independent validator, text by text.

The texts of a cell are JSON without white space, names in the order of the schema. An engine accepts exactly the valid ones,
or refuses the schema and says so; nothing in between.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from .support import ENGINES, needs, takes

WHOLE, TEXT, NONE = ({"type": kind} for kind in ("integer", "string", "null"))
AB: dict[str, Any] = {"type": "object", "properties": {"a": NONE, "b": NONE}, "additionalProperties": False}
INTEGERS = [
    "0",
    "-1",
    "1",
    "4",
    "5",
    "6",
    "7",
    "10",
    "14",
    "15",
    "49",
    "-5",
    "-6",
    "-7",
    "9007199254740992",
    "1000000007",
]
FLOATS = ["0.5", "0.25", "-0.5", "1.5", "1.75", "2.0", "0.0000001", "0.00000009"]
NUMBERS = [*INTEGERS[:8], *FLOATS]
STRINGS = ['""', '"a"', '"ab"', '"abc"', '"é"', '"日本"', '"a b"', '"ab12"', '"A"', '"🐲🐲"']
ARRAYS = ["[]", "[null]", "[null,null]", "[null,null,null]", "[1]", "[null,1]", '["a",1]', "[1,null]"]
OBJECTS = ["{}", '{"a":null}', '{"b":null}', '{"a":null,"b":null}', '{"a":1}', '{"c":null}']
ANY = ["null", "true", "1", '"a"', "[]", "{}"]

LL, XG, OC, LMFE = "llguidance", "xgrammar", "outlines-core", "lm-format-enforcer"
ALL, BUT_LMFE, BOTH = (LL, XG, OC, LMFE), (LL, XG, OC), (LL, XG)
TABLE: dict[str, tuple[dict[str, Any], list[str], tuple[str, ...]]] = {
    "type integer": (WHOLE, [*INTEGERS, "-0.5", '"1"', "01"], BUT_LMFE),
    "type number": ({"type": "number"}, [*NUMBERS, "1.", ".5"], BUT_LMFE),
    "type string": (TEXT, [*(text for text in STRINGS if text.isascii()), "1"], ALL),
    "type string beyond ASCII": (TEXT | {"minLength": 0}, [*STRINGS, "1"], BUT_LMFE),
    "type boolean": ({"type": "boolean"}, ANY, ALL),
    "type null": (NONE, ANY, ALL),
    "types": ({"type": ["boolean", "null"]}, ANY, ALL),
    "minimum": (WHOLE | {"minimum": 5}, INTEGERS, BOTH),
    "minimum below 0": (WHOLE | {"minimum": -6}, INTEGERS, BOTH),
    "minimum of a fraction": ({"type": "number", "minimum": 0.5}, NUMBERS, BOTH),
    "minimum close to 0": ({"type": "number", "minimum": 1e-7}, FLOATS[:-2] + FLOATS[-1:], BOTH),
    "minimum at 2^53": (WHOLE | {"minimum": 2**53}, INTEGERS, BOTH),
    "minimum beyond 2^53": (WHOLE | {"minimum": 2**53 + 1}, INTEGERS, ()),
    "maximum": (WHOLE | {"maximum": 5}, INTEGERS, BOTH),
    "maximum below 0": (WHOLE | {"maximum": -6}, INTEGERS, BOTH),
    "maximum of a fraction": ({"type": "number", "maximum": 1.5}, NUMBERS[:-2], BOTH),
    "exclusiveMinimum": (WHOLE | {"exclusiveMinimum": 5}, INTEGERS, BOTH),
    "exclusiveMinimum of a number": ({"type": "number", "exclusiveMinimum": 0.5}, NUMBERS, BOTH),
    "exclusiveMaximum": (WHOLE | {"exclusiveMaximum": 5}, INTEGERS, BOTH),
    "between": (WHOLE | {"minimum": -6, "maximum": 14}, INTEGERS, BOTH),
    "multipleOf": (WHOLE | {"multipleOf": 7}, INTEGERS, BOTH),
    "multipleOf a fraction": ({"type": "number", "multipleOf": 0.25}, ["0.25", "0.50", "1.75", "-0.25", "2", "0.3", "0.26", "1.80"], (LL,)),
    "multipleOf beside bounds": (WHOLE | {"multipleOf": 5, "minimum": 1, "maximum": 10}, INTEGERS, BOTH),
    "minLength": (TEXT | {"minLength": 2}, STRINGS, BUT_LMFE),
    "maxLength": (TEXT | {"maxLength": 2}, STRINGS, BUT_LMFE),
    "lengths": (TEXT | {"minLength": 1, "maxLength": 2}, STRINGS, BUT_LMFE),
    "pattern": (TEXT | {"pattern": "^[a-c]+[0-9]*$"}, STRINGS, ALL),
    "pattern beside length": (TEXT | {"pattern": "^[a-z]+$", "maxLength": 2}, STRINGS, (LL,)),
    "pattern anywhere": (TEXT | {"pattern": "b"}, STRINGS, BUT_LMFE),
    "enum": ({"enum": ["a", "ab", "A"]}, STRINGS, ALL),
    "enum of escapes": ({"enum": ["\n", '"']}, ['"\\n"', '"\\""', '"n"', '"\n"', '"""'], BUT_LMFE),
    "enum of kinds": ({"enum": [None, 1, "a", []]}, ANY, BUT_LMFE),
    "const": ({"const": {"a": [1]}}, ['{"a":[1]}', '{"a":[2]}', "{}"], BUT_LMFE),
    "const beyond 2^53": ({"const": 2**53 + 1}, INTEGERS, ()),
    "items": ({"type": "array", "items": NONE}, ARRAYS, ALL),
    "minItems": ({"type": "array", "items": NONE, "minItems": 2}, ARRAYS, ALL),
    "maxItems": ({"type": "array", "items": NONE, "maxItems": 1}, ARRAYS, ALL),
    "prefixItems": ({"type": "array", "prefixItems": [NONE, WHOLE], "items": False, "minItems": 2}, ARRAYS, BUT_LMFE),
    "uniqueItems": ({"type": "array", "items": NONE, "uniqueItems": True}, ARRAYS, ()),
    "contains": ({"type": "array", "items": NONE, "contains": NONE}, ARRAYS, ()),
    "properties": (AB, OBJECTS, BUT_LMFE),
    "required": (AB | {"required": ["a", "b"]}, OBJECTS, ALL),
    "minProperties": (AB | {"minProperties": 1}, OBJECTS, BOTH),
    "minProperties of names that repeat": ({"type": "object", "additionalProperties": NONE, "minProperties": 2}, OBJECTS, ()),
    "additionalProperties": ({"type": "object", "additionalProperties": NONE}, OBJECTS, ALL),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^a$": NONE}, "additionalProperties": False}, OBJECTS, (LL,),
    ),
    "dependentRequired": (AB | {"dependentRequired": {"a": ["b"]}}, OBJECTS, ()),
    "anyOf": ({"anyOf": [NONE, WHOLE]}, [*ANY, *INTEGERS[:4]], BUT_LMFE),
    "anyOf beside": ({"type": "object", "required": ["a"], "anyOf": [AB]}, OBJECTS, (LL,)),
    "allOf": ({"allOf": [WHOLE | {"minimum": 5}, {"maximum": 7}]}, INTEGERS, (LL,)),
    "$ref": ({"$ref": "#/$defs/n", "$defs": {"n": NONE}}, ANY, ALL),
    "not": (WHOLE | {"not": {"const": 5}}, INTEGERS, ()),
    "if": (WHOLE | {"if": {"minimum": 5}, "then": {"multipleOf": 5}}, INTEGERS, ()),
    "format date": (TEXT | {"format": "date"}, ['"2024-02-29"', '"2023-02-29"', '"1999-12-31"', '"a"'], BUT_LMFE),
    "format hostname": (TEXT | {"format": "hostname"}, STRINGS, ()),
}  # fmt: skip
"""Schema, texts, and the engines that accept it."""


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_cell(engine: str, name: str) -> None:
    needs(engine)
    jsonschema = pytest.importorskip("jsonschema")
    schema, texts, engines = TABLE[name]
    if engine not in engines:
        with pytest.raises(ValueError, match=r".{15}"):
            takes(schema, engine, [])
        return
    judge = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    valid = [_valid(judge, text) for text in texts]
    assert set(valid) == {True, False}
    assert dict(zip(texts, takes(schema, engine, texts), strict=True)) == dict(zip(texts, valid, strict=True))


def _valid(judge: Any, text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(judge.is_valid(value))
