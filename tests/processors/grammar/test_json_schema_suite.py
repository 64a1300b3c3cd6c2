"""The official JSON Schema test suite, drafts 7 and 2020-12: each schema is held or refused aloud, by every engine."""

from __future__ import annotations

import collections
import json

import pytest

from .suite_support import SUITE, VERDICTS, Group, groups, judged, spellings
from .support import ENGINES, needs

AT_LEAST = {"llguidance": 1900, "xgrammar": 400, "outlines-core": 350, "lm-format-enforcer": 120}
"""Instances that each engine is right about: what is refused is never wrong."""


@pytest.mark.parametrize("engine", ENGINES)
def test_never_wrong(engine: str) -> None:
    needs(engine)
    if not SUITE.is_dir():
        pytest.skip(f"the suite is not there: {SUITE}")
    found = [judged(engine, group) for group in groups()]
    wrong = [
        f"{one.group.name}: {json.dumps(one.group.schema)} takes {json.dumps(instance)}"
        for one in found
        for (instance, _), verdict in zip(one.group.tests, one.verdicts, strict=True)
        if verdict == "wrong"
    ]
    assert not wrong, "\n".join(wrong)
    assert not [one.group.name for one in found if one.refusal is not None and len(one.refusal) < 20]
    counts = collections.Counter(verdict for one in found for verdict in one.verdicts)
    assert counts["right"] >= AT_LEAST[engine], counts
    assert counts["narrower"] <= 60, counts


def test_verdicts() -> None:
    needs("llguidance")
    number = {"type": "integer", "maximum": 5}
    given = Group("", number, ((4, True), (6, False), (5, False), ("x", True)))
    assert judged("llguidance", given).verdicts == ("right", "right", "wrong", "narrower")
    assert judged("llguidance", Group("", {"not": {}}, ((4, False),))).verdicts == ("refused",)
    assert {*judged("llguidance", given).verdicts, "refused"} == set(VERDICTS)


def test_spellings() -> None:
    assert set(spellings(1)) == {"1", "1.0"}
    assert set(spellings("é")) == {'"é"', '"\\u00e9"'}
    found = list(spellings({"a": 1.0, "b": []}))
    assert len(found) == len(set(found))
    assert {'{"a":1,"b":[]}', '{"b":[],"a":1.0}', '{"\\u0061":1.0,"\\u0062":[]}'} <= set(found)
    assert all(json.loads(text) == {"a": 1, "b": []} for text in found)
