"""Names that are taken for another's are told of, and others are not."""

from __future__ import annotations

import pytest

from genmode.plugins.entries import Entry
from genmode.plugins.lookalikes import lookalikes, one_apart, skeleton

pytestmark = pytest.mark.no_torch


def entry(home: str, name: str, kind: str = "processors") -> Entry:
    return Entry(kind, name, home, "1.0", "m:C", "/p")


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("genmode", "Gen_Mode", True),
        ("genmode", "gen-rnode", True),
        ("top_k", "top-K", True),
        ("plug", "p1ug", True),
        ("top_k", "top_p", False),
        ("genmode", "genmode-contrib", False),
    ],
)
def test_skeletons(first: str, second: str, alike: bool) -> None:
    assert (skeleton(first) == skeleton(second)) is alike


@pytest.mark.parametrize(
    ("other", "apart"),
    [
        ("genmodes", True), ("enmode", True), ("genmod", True), ("gemnode", True), ("genmoda", True), ("xgenmode", True),
        ("genmode", False), ("genmodess", False), ("edomneg", False), ("gnemdoe", False), ("", False),
    ],
)  # fmt: skip
def test_one_letter_apart(other: str, apart: bool) -> None:
    assert one_apart("genmode", other) is apart
    assert one_apart(other, "genmode") is apart


def test_distributions_and_components_that_are_alike() -> None:
    told = lookalikes(
        [
            entry("genmode", "top_k"),
            entry("genmodes", "mine"),
            entry("gen-mode", "other"),
            entry("plug", "Top-K"),
            entry("plug", "dry_1"),
            entry("plug", "dry_l"),
            entry("p1ug", "fine"),
            entry("far", "top_k", "criteria"),
        ]
    )
    assert [one.partition(" are easily")[0] for one in told] == [
        "the distributions gen-mode and genmode",
        "the distributions p1ug and plug",
        "the distributions genmode and genmodes",
        "processors: 'Top-K' of plug and 'top_k' of genmode",
    ]


def test_names_that_are_not_alike_are_not_told_of() -> None:
    assert lookalikes([entry("plug", "it"), entry("other", "it"), entry("genmode-contrib", "top_k")]) == []
