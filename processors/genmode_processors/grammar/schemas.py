"""Which JSON schemas an engine holds in full.

Some engines skip keywords that they do not know, or take them for less than they say, and their outputs then break
the schema without a word. So each states what it holds, as tried against an independent validator
(`tests/processors/grammar/test_schemas.py`), and any other schema is refused before the model runs. llguidance
refuses by itself what it does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

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

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONE = ("items", "additionalProperties", "propertyNames", "not", "contains", "if", "then", "else")


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
        types = part.get("type", [])
        types = {types} if isinstance(types, str) else set(cast("list[str]", types))
        if held.types is not None and not part.keys() & {"type", "enum", "anyOf", "$ref"}:
            raise ValueError(f"{path} has no type; give one of {', '.join(sorted(held.types))}")
        if held.types is not None and (beyond := sorted(types - held.types)):
            raise ValueError(f"{path} has the type {', '.join(beyond)}, which it does not write as JSON has it")
        if held.formats is not None and part.get("format", "date") not in held.formats:
            raise ValueError(f"{path} has the format {part['format']!r}; it enforces {', '.join(sorted(held.formats))}")
        if not held.escapes and any(
            len(json.dumps(one, ensure_ascii=False)) != len(one) + 2 for one in part.get("enum", [])
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


def subschemas(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any] | bool]]:
    """A schema and all within it, each with where it stands."""
    yield path, schema
    if isinstance(schema, bool):
        return
    for key in _MAPS:
        for name, part in cast("dict[str, Any]", schema.get(key, {})).items():
            yield from subschemas(part, f"{path}.{key}.{name}")
    for key in _LISTS:
        for place, part in enumerate(cast("list[Any]", schema.get(key, []))):
            yield from subschemas(part, f"{path}.{key}[{place}]")
    for key in _ONE:
        if key in schema:
            yield from subschemas(schema[key], f"{path}.{key}")


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with objects that have the listed properties alone, unless they say otherwise.

    Schemas that put objects together of parts (`allOf`, `unevaluatedProperties`) are left as they are.
    """
    result: dict[str, Any] = json.loads(json.dumps(schema))
    parts = [part for _, part in subschemas(result, "$") if isinstance(part, dict)]
    if any(part.keys() & {"allOf", "unevaluatedProperties", "if", "dependentSchemas"} for part in parts):
        return schema
    for part in parts:
        if "properties" in part and not part.keys() & {"additionalProperties", "patternProperties", "propertyNames"}:
            unlisted = set(part.get("required", [])) - set(part["properties"])
            part["additionalProperties"] = bool(unlisted)
    return result


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
