"""Schemas written so that engines hold them exactly: days that exist, and objects that are closed as one whole.

Days. Engines take any 29 February, and any 60th second. So the formats of dates and times stand as patterns of RFC 3339
(appendix C: a year is a leap year if 4 divides it, and 100 does not or 400 does); leap seconds, which depend on the zone,
are left out.

Objects. Where several parts speak of one object (`$ref`, `anyOf`, `oneOf`, `allOf`, `if` beside each other or beside
`properties`), each lists some of its properties alone. To close one of them would forbid what the others ask for, so
they are left as open as they are written. What is asked in the negative (`not`, `if`) is left as well, since closing it
would allow more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from .pattern_text import Within, written

_DAYS = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
PATTERNS = {"date": f"^{_DAYS}$", "time": f"^{_TIME}$", "date-time": f"^{_DAYS}[Tt]{_TIME}$"}
"""Formats that are written as patterns."""

MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
ONE = ("items", "additionalProperties", "propertyNames", "not", "contains", "if", "then", "else", "additionalItems")
ONE_MORE = ("unevaluatedItems", "unevaluatedProperties")
_OPEN = ("additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties")


def is_a(value: Any, kind: type) -> bool:
    """Whether a value of JSON is of a type; what is within it stays untyped."""
    return isinstance(value, kind)


def subschemas(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any] | bool]]:
    """A schema and all within it, each with where it stands."""
    yield path, schema
    if not isinstance(schema, dict):
        return
    for where, part in _within(cast("dict[str, Any]", schema)):
        yield from subschemas(part, path + where)


def _within(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in MAPS:
        if is_a(parts := schema.get(key, {}), dict):
            for name, part in parts.items():
                yield f".{key}.{name}", part
    for key in (*LISTS, "items"):
        if is_a(parts := schema.get(key, []), list):
            for place, part in enumerate(parts):
                yield f".{key}[{place}]", part
    for key in (*ONE, *ONE_MORE):
        if isinstance(schema.get(key), (dict, bool)):
            yield f".{key}", schema[key]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with objects that have the listed properties alone, unless they say otherwise."""
    result: dict[str, Any] = json.loads(json.dumps(schema))
    parts = [part for _, part in subschemas(result, "$") if isinstance(part, dict)]
    left: set[int] = set()
    for part in parts:
        for key in ("not", "if", "contains", "propertyNames"):
            _leave(part.get(key), result, left)
        together = [
            _in_place(part, key) for key in ("$ref", "$dynamicRef", "anyOf", "oneOf", "then", "dependentSchemas")
        ]
        together += [[one] for one in _in_place(part, "allOf")]
        together = [one for one in together if one]
        if len(together) + bool(_speaks(part)) > 1:
            left.add(id(part))
            for one in together:
                for each in one:
                    _leave(each, result, left)
    for part in parts:
        if "properties" in part and id(part) not in left and not part.keys() & set(_OPEN):
            unlisted = set(part.get("required", [])) - set(part["properties"])
            part["additionalProperties"] = bool(unlisted)
    return result


def _speaks(part: dict[str, Any]) -> set[str]:
    return part.keys() & {"properties", "required", "minProperties", "dependentRequired", *_OPEN}


def _in_place(part: dict[str, Any], key: str) -> list[Any]:
    """What a keyword says of the same value."""
    if key not in part:
        return []
    value = part[key]
    if key == "dependentSchemas":
        return list(cast("dict[str, Any]", value).values())
    if key == "then":
        return [value, part.get("else", True)]
    return value if is_a(value, list) else [{key: value} if key.startswith("$") else value]


def _leave(part: Any, root: dict[str, Any], left: set[int]) -> None:
    """Note a part, and all that speaks of the same value, as left open."""
    if not is_a(part, dict) or id(part) in left:
        return
    known: dict[str, Any] = part
    left.add(id(known))
    if isinstance(reference := known.get("$ref"), str):
        _leave(found(root, reference), root, left)
    for key in ("anyOf", "oneOf", "allOf", "then", "dependentSchemas"):
        for one in _in_place(known, key):
            _leave(one, root, left)


def found(root: dict[str, Any], reference: str) -> Any:
    """The part that a reference within the schema leads to; None where it leads elsewhere."""
    if not reference.startswith("#"):
        return None
    place: Any = root
    for name in reference[1:].split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if is_a(place, list) and name.isdigit() and int(name) < len(cast("list[Any]", place)):
            place = cast("list[Any]", place)[int(name)]
        elif isinstance(place, dict):
            place = cast("dict[str, Any]", place).get(name)
        else:
            return None
    return place


def dated(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with dates and times as patterns."""
    result: dict[str, Any] = json.loads(json.dumps(schema))
    for _, part in list(subschemas(result, "$")):
        if isinstance(part, dict) and (pattern := PATTERNS.get(str(part.get("format")))) is not None:
            del part["format"]
            if "pattern" in part:
                part["allOf"] = [*part.get("allOf", []), {"pattern": pattern}]
            else:
                part["pattern"] = pattern
    return result


def spelled(schema: dict[str, Any], within: Within) -> dict[str, Any]:
    """The schema with patterns that every engine reads alike.

    Args:
        schema: any.
        within: see `pattern_text.Within`.

    Raises:
        ValueError: names the pattern and where it stands.
    """
    result: dict[str, Any] = json.loads(json.dumps(schema))
    for path, part in list(subschemas(result, "$")):
        if not isinstance(part, dict):
            continue
        try:
            if is_a(part.get("pattern"), str):
                part["pattern"] = written(part["pattern"], within)
            if is_a(part.get("patternProperties"), dict):
                named = {written(name, within): one for name, one in part["patternProperties"].items()}
                if len(named) < len(part["patternProperties"]):
                    raise ValueError("two patterns of patternProperties are the same; put them together")
                part["patternProperties"] = named
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return result
