"""Patterns of JSON Schema as trees."""

from __future__ import annotations

import pytest

from genmode_processors.patterns import (
    ANY,
    Characters,
    Choice,
    Repeat,
    Sequence,
    firsts,
    inverse,
    merged,
    read,
    without,
)

A = Characters(((97, 97),))


def one(*ranges: str) -> Characters:
    """A set of characters by the ends of its ranges."""
    return Characters(tuple((ord(each[0]), ord(each[-1])) for each in ranges))


@pytest.mark.parametrize(
    ("pattern", "tree"),
    [
        ("a", A),
        ("a|a", Choice((A, A))),
        ("(?:aa)*?", Repeat(Sequence((A, A)), 0, None)),
        ("(?<name>a){2,}", Repeat(A, 2, None)),
        ("a{2}", Repeat(A, 2, 2)),
        ("a{2,3}", Repeat(A, 2, 3)),
        ("[c-ea-b]", one("ae")),
        ("[a-]", one("-", "a")),
        ("[\\]a]", one("]", "a")),
        ("[[a]", one("[", "a")),
        ("[a&&b]", one("&", "ab")),
        ("\\d", one("09")),
        ("\\w", one("09", "AZ", "_", "az")),
        ("\\x41", one("A")),
        ("\\u0041", one("A")),
        ("\\u{1F432}", Characters(((0x1F432, 0x1F432),))),
        ("\\ud83d\\udc32", Characters(((0x1F432, 0x1F432),))),
        ("\\cA", Characters(((1, 1),))),
        ("[\\b]", Characters(((8, 8),))),
        ("\\.", one(".")),
        ("[\\s\\S]", Characters(((0, 0x1B), (0x20, 0x84), (0x86, 0xFEFE), (0xFF00, 0x10FFFF)))),
        ("", Sequence(())),
    ],
)  # fmt: skip
def test_trees(pattern: str, tree: object) -> None:
    assert read(pattern) == tree


@pytest.mark.parametrize(
    "pattern",
    [
        "(a", "a)", "[a", "*a", "a**", "a*+", "^*", "a{3,2}", "a{", "}", "]", "[]", "[]a]", "[b-a]", "[a-\\d]", "\\", "\\b", "\\B",
        "\\D", "\\W", "[^\\d]", "[^\\w]", "\\1", "\\k<a>", "\\a", "\\ud83d", "\\u{110000}", "(?=a)", "(?!a)", "(?<=a)", "(?i)a", "\\p",
        "[^\\s\\S]", "[\\p{L}]", "(" * 200 + ")" * 200,
    ],
)  # fmt: skip
def test_what_is_read_differently_or_not_at_all(pattern: str) -> None:
    with pytest.raises(ValueError, match="the pattern"):
        read(pattern)


def test_ranges() -> None:
    assert merged([(5, 6), (1, 2), (3, 3), (5, 9)]) == ((1, 3), (5, 9))
    assert inverse(((0, 4), (9, 0x10FFFF))) == ((5, 8),)
    assert inverse(()) == ANY.ranges
    assert without(((1, 9),), ((3, 4),)) == ((1, 2), (5, 9))


@pytest.mark.parametrize(
    ("pattern", "first"), [("^ab", "a"), ("a?b", "ab"), ("(a|b*)c", "abc"), ("a*|b", "ab"), ("", "")]
)
def test_firsts(pattern: str, first: str) -> None:
    assert firsts(read(pattern)) == merged((ord(each), ord(each)) for each in first)
