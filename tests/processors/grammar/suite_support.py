"""The official JSON Schema test suite, driven through compiled grammars byte by byte.

The suite (https://github.com/json-schema-org/JSON-Schema-Test-Suite, MIT) is read where it lies, beside the project;
it is not part of it. An instance is a value, and a grammar is about texts, so each instance stands for all its spellings
that are tried: the names of objects in several orders, characters as they are and by number, and numbers with and
without a fraction.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genmode_processors.grammar.requests import Wanted

from .support import compiler, spells

SUITE = Path(__file__).parents[4] / "shared" / "data" / "json-schema-suite" / "tests"
DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
Verdict = Literal["right", "refused", "narrower", "wrong"]
VERDICTS: tuple[Verdict, ...] = ("right", "refused", "narrower", "wrong")
MOST_SPELLINGS = 48


@dataclass(frozen=True)
class Group:
    """A schema of the suite, and instances with whether they meet it."""

    name: str
    schema: dict[str, Any]
    tests: tuple[tuple[Any, bool], ...]


@dataclass(frozen=True)
class Judged:
    """What an engine did with a group.

    Attributes:
        refusal: why the engine refused the schema, or None.
        verdicts: one for each instance.
    """

    group: Group
    refusal: str | None
    verdicts: tuple[Verdict, ...]


def groups() -> list[Group]:
    """All groups of the drafts whose schema is an object, which is what `grammar=` takes; each says its draft."""
    found: list[Group] = []
    for draft, uri in DRAFTS.items():
        for file in sorted((SUITE / draft).rglob("*.json")):
            for group in json.loads(file.read_text(encoding="utf-8")):
                if isinstance(group["schema"], dict):
                    name = f"{file.relative_to(SUITE).with_suffix('').as_posix()}: {group['description']}"
                    tests = tuple((test["data"], test["valid"]) for test in group["tests"])
                    found.append(Group(name, {"$schema": uri} | group["schema"], tests))
    return found


def judged(engine: str, group: Group) -> Judged:
    """Compile a group's schema and look at each instance."""
    try:
        grammar = compiler(engine).compile(Wanted("json_schema", json.dumps(group.schema)), False)
    except Exception as error:
        return Judged(group, f"{type(error).__name__}: {error}", ("refused",) * len(group.tests))
    verdicts: list[Verdict] = []
    for instance, valid in group.tests:
        taken = any(spells(grammar, text) for text in itertools.islice(spellings(instance), MOST_SPELLINGS))
        verdicts.append("right" if taken == valid else "narrower" if valid else "wrong")
    return Judged(group, None, tuple(verdicts))


def spellings(instance: Any) -> Iterator[str]:
    """Texts of a value, without white space."""
    seen: set[str] = set()
    for value in _ordered(instance):
        for shown in (value, _numbers(value, whole=True), _numbers(value, whole=False)):
            for plain in (True, False):
                text = json.dumps(shown, ensure_ascii=not plain, separators=(",", ":"))
                if text not in seen:
                    seen.add(text)
                    yield text
        if text != (escaped := ESCAPABLE.sub(_by_number, text)):
            yield escaped


ESCAPABLE = re.compile(r"(?<=[{,\[:]\")[a-zA-Z]|(?<=^\")[a-zA-Z]")
"""The first letter of a string; JSON may write any character as its number."""


def _by_number(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _ordered(value: Any) -> Iterator[Any]:
    """The value with the names of each object in every order."""
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for parts in itertools.product(*(list(itertools.islice(_ordered(value[name]), 6)) for name in names)):
                yield dict(zip(names, parts, strict=True))
    elif isinstance(value, list):
        for parts in itertools.product(*(list(itertools.islice(_ordered(one), 6)) for one in value)):
            yield list(parts)
    else:
        yield value


def _numbers(value: Any, whole: bool) -> Any:
    """The value with numbers that are whole written with or without a fraction."""
    if isinstance(value, dict):
        return {name: _numbers(one, whole) for name, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one, whole) for one in value]
    if isinstance(value, float):
        return int(value) if whole and value.is_integer() else value
    return float(value) if type(value) is int and not whole and abs(value) < 2**53 else value
