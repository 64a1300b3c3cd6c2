"""What the caller means by `grammar=`, as one of five kinds of plain text.

    {"regex": "..."}         or a compiled `re.Pattern` without flags
    {"json_schema": ...}     a schema as dict or JSON text; also a dict that is a schema itself, or a pydantic class
    {"ebnf": "..."}          GBNF, the notation of llama.cpp: `root ::= "a" | digit+`
    {"lark": "..."}          Lark's notation: `start: "a" | DIGIT+`
    {"choices": [...]}       or a list of strings: exactly one of them

Everything but classes and patterns is plain data, so a generation config can save it. A bare string is refused,
since it could be any of four.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import pydantic

Kind = Literal["regex", "json_schema", "ebnf", "lark", "choices"]
KINDS: tuple[Kind, ...] = ("regex", "json_schema", "ebnf", "lark", "choices")

SCHEMA_WORDS = frozenset(
    [
        "$schema",
        "$ref",
        "$defs",
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "oneOf",
        "additionalProperties",
        "patternProperties",
        "pattern",
        "minimum",
        "maximum",
        "title",
        "description",
    ]
)
"""A dict without any of these, which is not empty, is not taken for a JSON schema."""

FORMS = (
    '{"regex": ...}, {"json_schema": ...}, {"ebnf": ...}, {"lark": ...}, a list of choices, a JSON schema as dict, or '
    "a pydantic class"
)


@dataclass(frozen=True)
class Wanted:
    """A normalised grammar.

    Attributes:
        kind: which notation `text` is in.
        text: the regex, the schema as JSON, the grammar, or the choices as a JSON list.
    """

    kind: Kind
    text: str

    @property
    def schema(self) -> dict[str, Any]:
        """The schema of kind "json_schema"."""
        return cast("dict[str, Any]", json.loads(self.text))

    @property
    def choices(self) -> list[str]:
        """The strings of kind "choices"."""
        return cast("list[str]", json.loads(self.text))

    def plain(self) -> dict[str, Any]:
        """The same as a dict with its kind as key, which `wanted` reads."""
        return {self.kind: json.loads(self.text) if self.kind in ("json_schema", "choices") else self.text}


def wanted(given: Any) -> Wanted:
    """What `given` asks for.

    Raises:
        ValueError: it is none of the forms above, or empty, or no schema.
    """
    if isinstance(given, Wanted):
        return given
    if isinstance(given, re.Pattern):
        if not isinstance(given.pattern, str) or given.flags & ~re.UNICODE:
            raise ValueError(f"{given!r} is a pattern of bytes or has flags, which no engine knows; write it without")
        return wanted({"regex": given.pattern})
    if isinstance(given, type) and issubclass(given, pydantic.BaseModel):
        return Wanted("json_schema", json.dumps(given.model_json_schema()))
    if isinstance(given, (list, tuple)):
        return wanted({"choices": list(cast("list[Any]", given))})
    if isinstance(given, Mapping):
        try:
            return _of_mapping(dict(cast("Mapping[str, Any]", given)))
        except RecursionError:  # of json, or of re; its traceback has a frame for each part
            raise ValueError("the grammar has parts that stand too deep within each other") from None
    if isinstance(given, str):
        raise ValueError(f"{short(given)} could be a regex, a schema or a grammar; say which: {FORMS}")
    raise ValueError(f"{short(given)} is no grammar; give {FORMS}")


def _of_mapping(given: dict[str, Any]) -> Wanted:
    for kind in KINDS:
        if given.keys() != {kind}:
            continue
        value = given[kind]
        if kind == "choices":
            return Wanted(kind, json.dumps(_choices(value)))
        if kind == "json_schema":
            return Wanted(kind, json.dumps(_schema(value)))
        if not isinstance(value, str) or not value:
            raise ValueError(f"{kind}={short(value)}: give it as text that is not empty")
        if kind == "regex":
            _check_classes(value)
        return Wanted(kind, value)
    if given and not SCHEMA_WORDS & given.keys():
        raise ValueError(f"{short(given)} is neither a JSON schema nor one of {FORMS}")
    return Wanted("json_schema", json.dumps(_schema(given)))


def _check_classes(regex: str) -> None:
    """Refuse classes such as `[a&&b]` or `[[:alpha:]]`: of characters for some engines, of sets for others.

    Raises:
        ValueError: says which.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # Python warns of just these
        try:
            re.compile(regex)
        except FutureWarning as error:
            raise ValueError(
                f"regex={short(regex)} has a class that engines read differently ({error}); put a \\ before its signs, or "
                "write it out"
            ) from error
        except (re.error, OverflowError, RecursionError):
            return  # engines have more than Python, such as \\p{L}, and say themselves what they do not know


def _choices(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"choices={short(value)}: give a list of at least one string")
    found = list(cast("list[Any]", value))
    wrong = [one for one in found if not isinstance(one, str) or not one]
    if wrong:
        raise ValueError(f"choices: {short(wrong[0])} is not allowed; give strings of at least one character")
    return cast("list[str]", found)


def _schema(value: Any) -> dict[str, Any]:
    if isinstance(value, type) and issubclass(value, pydantic.BaseModel):
        value = value.model_json_schema()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"json_schema={short(value)} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"json_schema={short(value)}: a schema is an object, as dict or JSON text")
    schema = cast("dict[str, Any]", value)
    try:
        json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ValueError(f"json_schema={short(schema)} cannot be written as JSON: {error}") from error
    return schema


def short(value: Any) -> str:
    """What is given, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
