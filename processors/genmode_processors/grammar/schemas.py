"""Which JSON schemas an engine holds in full.

Some engines skip keywords that they do not know, or take them for less than they say, and their outputs then break
the schema without a word. So each states what it holds, as tried against an independent validator
(`tests/processors/grammar/test_schemas.py`), and any other schema is refused before the model runs. llguidance
refuses by itself what it does not hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from .exact import found, is_a, subschemas

NOTES = frozenset(
    [
        "$schema",
        "$id",
        "$comment",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
    ]
)
"""Keywords that allow and forbid nothing."""

BASIC = frozenset(
    [
        "type",
        "enum",
        "const",
        "anyOf",
        "$ref",
        "$defs",
        "definitions",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
    ]
)
STRINGS = frozenset(["minLength", "maxLength", "pattern", "format"])
NUMBERS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
PROPERTIES = frozenset(["patternProperties", "propertyNames", "minProperties", "maxProperties"])

EXACT = 2**53
"""Up to here a float is every integer."""
PARTLY = frozenset(["hostname"])
"""Formats of which engines let through more than they are."""
TOGETHER = frozenset(["anyOf", "$ref", "enum", "const"])
"""Keywords beside which some engines forget others."""
OF_TYPE = {
    "string": STRINGS,
    "number": NUMBERS,
    "array": frozenset(["items", "prefixItems", "minItems", "maxItems"]),
    "object": PROPERTIES | {"properties", "required", "additionalProperties"},
}
"""Keywords that speak of one type, which some engines forget where it is not the only one."""


@dataclass(frozen=True)
class Held:
    """What an engine holds.

    Attributes:
        keywords: the keywords that it enforces, besides `NOTES`.
        types: the types that it writes as JSON has them; None for all.
        formats: the formats of strings that it enforces as they are meant; None for all that it knows.
        lengths_of_patterns: whether `pattern` may stand beside `minLength` and `maxLength`.
        optional: whether properties may be left out.
        recursive: whether a schema may contain itself.
        escapes: whether it writes the strings of `enum` with what JSON escapes.
    """

    keywords: frozenset[str]
    types: frozenset[str] | None = None
    formats: frozenset[str] | None = None
    lengths_of_patterns: bool = False
    optional: bool = True
    recursive: bool = True
    escapes: bool = True


def check_schema(schema: dict[str, Any], held: Held) -> None:
    """Refuse a schema that the engine does not hold in full.

    Raises:
        ValueError: names the keyword and where it stands.
    """
    check_exact(schema)
    for path, part in subschemas(schema, "$"):
        if isinstance(part, bool):
            if not path.endswith((".additionalProperties", ".items")) or part:
                raise ValueError(f"{path} is {str(part).lower()}, which it does not hold; write out what is allowed")
            continue
        unknown = sorted(part.keys() - held.keywords - NOTES)
        if unknown:
            raise ValueError(f"{path} has {', '.join(unknown)}, which it does not enforce")
        if "pattern" in part and {"minLength", "maxLength"} & part.keys() and not held.lengths_of_patterns:
            raise ValueError(
                f"{path} has a pattern and a length, of which it enforces one; put the length into the pattern"
            )
        beside = part.keys() - NOTES - {"$defs", "definitions", "type"}
        if beside & TOGETHER and len(beside) > 1:
            raise ValueError(f"{path} has {', '.join(sorted(beside))} beside each other, of which it enforces one")
        types = part.get("type", [])
        types = {types} if isinstance(types, str) else set(cast("list[str]", types))
        if (step := part.get("multipleOf", 1)) != int(step) or ("multipleOf" in part and types != {"integer"}):
            raise ValueError(
                f"{path} has multipleOf {step}, which it enforces for whole numbers of the type integer alone"
            )
        meant = {"number" if one == "integer" else one for one in types}
        for kind, words in OF_TYPE.items():
            if (spoken := sorted(part.keys() & words)) and meant != {kind}:
                raise ValueError(f"{path} has {', '.join(spoken)} without the type {kind} alone, which it forgets")
        if "properties" in part and isinstance(part.get("additionalProperties"), dict):
            raise ValueError(
                f"{path} has properties beside others of any name, among which it lets the listed ones be spelled with "
                'escapes; give "additionalProperties": false'
            )
        if "$ref" in part and not isinstance(found(schema, str(part["$ref"])), dict):
            raise ValueError(
                f"{path} has the $ref {part['$ref']!r}, which does not lead to an object within the schema"
            )
        if "$id" in part and path != "$":
            raise ValueError(f"{path} has an $id, which changes what a $ref means and which it does not follow")
        if held.types is not None and not part.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
            raise ValueError(f"{path} has no type; give one of {', '.join(sorted(held.types))}")
        if held.types is not None and (beyond := sorted(types - held.types)):
            raise ValueError(f"{path} has the type {', '.join(beyond)}, which it does not write as JSON has it")
        if held.formats is not None and part.get("format", "date") not in held.formats:
            raise ValueError(f"{path} has the format {part['format']!r}; it enforces {', '.join(sorted(held.formats))}")
        if not held.escapes and any(
            not is_a(one, str) or len(json.dumps(one, ensure_ascii=False)) != len(one) + 2
            for one in part.get("enum", [])
        ):
            raise ValueError(f"{path} has an enum of other than strings that JSON writes as they are")
        properties, required = part.get("properties", {}), part.get("required", [])
        if unlisted := sorted(set(required) - set(properties)):
            raise ValueError(f"{path} requires {', '.join(unlisted)}, which its properties do not list")
        if not held.optional and (absent := sorted(set(properties) - set(required))):
            raise ValueError(
                f"{path} does not require {', '.join(absent)}; it writes wrong commas where one is left out"
            )
    if not held.recursive and (loop := _loop(schema)):
        raise ValueError(f"{loop} contains itself, which it holds to a small depth alone")


def check_exact(schema: dict[str, Any]) -> None:
    """Refuse what no engine holds exactly.

    - Numbers beyond 2^53, which engines read as floats: 9007199254740993 would be 9007199254740992.
    - `minProperties` of objects with properties of any name: a name that is repeated counts twice for engines, and
      once for JSON.
    - The formats that engines hold in part, and what draft 7 says of encoded content.

    Raises:
        ValueError: names the keyword and where it stands.
    """
    old = "draft-07" in str(schema.get("$schema"))
    for path, part in subschemas(schema, "$"):
        if isinstance(part, bool):
            continue
        for key in ("enum", "const", *sorted(NUMBERS)):
            for one in _numbers(part.get(key)):
                if not math.isfinite(one) or abs(one) > EXACT:
                    raise ValueError(f"{path} has {key} with {one}; engines hold numbers up to 2^53 = {EXACT} exactly")
        least = part.get("minProperties", 0)
        if least > max(1, len(part.get("required", []))):
            raise ValueError(
                f"{path} has minProperties {least}, which engines take as met where a name is repeated; list the names "
                "as required"
            )
        if part.get("format") in PARTLY:
            raise ValueError(f"{path} has the format {part['format']!r}, which engines hold in part; give a pattern")
        if old and (content := sorted(part.keys() & {"contentMediaType", "contentEncoding"})):
            raise ValueError(
                f"{path} has {', '.join(content)}, which draft 7 lets validators enforce and no engine does"
            )


def _numbers(value: Any) -> Iterator[float]:
    """All numbers within a value of JSON."""
    if is_a(value, dict):
        value = list(value.values())
    if is_a(value, list):
        for one in value:
            yield from _numbers(one)
    elif (is_a(value, int) or is_a(value, float)) and not is_a(value, bool):
        yield value


def _loop(schema: dict[str, Any]) -> str | None:
    """A definition that leads back to itself, or None."""
    homes = {"#": schema}
    for key in ("$defs", "definitions"):
        homes |= {f"#/{key}/{name}": part for name, part in schema.get(key, {}).items()}
    leads: dict[str, set[str]] = {}
    for home, part in homes.items():
        inner = {**part, "$defs": {}, "definitions": {}} if home == "#" else part
        leads[home] = {one["$ref"] for _, one in subschemas(inner, "") if isinstance(one, dict) and "$ref" in one}
    for home in leads:
        seen, waiting = set[str](), set(leads[home])
        while waiting:
            reference = waiting.pop()
            if reference == home:
                return home
            if reference not in seen:
                seen.add(reference)
                waiting |= leads.get(reference, set())
    return None
