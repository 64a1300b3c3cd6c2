"""Regular expressions read as JSON Schema means them (ECMA-262), and written so that every engine reads the same.

Engines take patterns for those of their own library. What `[[:alpha:]]`, `&&` within a class, `\\d`, `.` or a missing
anchor mean differs, and where a pattern stands inside of JSON some forget that `"`, `\\` and control characters are
escaped there. So a pattern is read here, into sets of characters, sequences, alternatives and repetitions, and written
anew: the whole text, no anchors, no classes by name.

Where validators differ, the narrower reading counts: `.` is no line end (`\\n \\r U+2028 U+2029`), `\\d` and `\\w` are of
ASCII, `\\s` is white space for ECMA-262 and for Python, and `\\S` is it for neither. What has no such reading (`\\D`, `\\W`,
`\\d` in a negated class) and what is no regular language (look-around, references, `\\b`) is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Characters:
    """One character of a set; the ranges are sorted and do not touch."""

    ranges: Ranges


@dataclass(frozen=True)
class Property:
    """One character of a class of Unicode, `\\p{...}`, which stays as it is written."""

    text: str


@dataclass(frozen=True)
class Edge:
    """`^` or `$`."""

    text: str


@dataclass(frozen=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    part: Node
    least: int
    most: int | None


Node: TypeAlias = Characters | Property | Edge | Sequence | Choice | Repeat


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges that overlap or touch put together."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return tuple(found)


def without(ranges: Ranges, other: Ranges) -> Ranges:
    """The characters of `ranges` that are not in `other`."""
    return inverse(merged([*inverse(ranges), *other]))


def inverse(ranges: Ranges) -> Ranges:
    """All other characters."""
    edges = [-1, *itertools.chain(*ranges), LAST + 1]
    return tuple((low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2], strict=True) if low + 1 < high)


def _of(text: str) -> Ranges:
    return merged((ord(one), ord(one)) for one in text)


ANY = Characters(((0, LAST),))
DOT = Characters(inverse(_of("\n\r\u2028\u2029")))
DIGITS: Ranges = ((48, 57),)
WORDS: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACES = merged([*_of("\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000"), (0x2000, 0x200A)])
ALL_SPACES = merged([*SPACES, *_of("\x1c\x1d\x1e\x1f\x85\ufeff")])
"""White space for ECMA-262 or for Python; `SPACES` are it for both."""
_NAMED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_QUANTIFIER = re.compile(r"(?:([*+?])|\{([0-9]+)(?:(,)([0-9]*))?\})(\??)")
_NUMBER = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]+)\}")
_DEEPEST = 100


def read(pattern: str) -> Node:
    """The pattern as a tree.

    Raises:
        ValueError: it is none, or it means different things to different libraries.
    """
    reader = _Reader(pattern)
    found = reader.choice()
    if reader.place < len(pattern):
        raise reader.refusal("a ) that nothing opens")
    return found


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.place, self.depth = pattern, 0, 0

    def refusal(self, what: str) -> ValueError:
        return ValueError(f"the pattern {self.pattern[:80]!r} has {what} before position {self.place}")

    def take(self) -> str:
        if self.place >= len(self.pattern):
            raise self.refusal("an end that is too early")
        self.place += 1
        return self.pattern[self.place - 1]

    def skip(self, text: str) -> bool:
        found = self.pattern.startswith(text, self.place)
        self.place += len(text) * found
        return found

    def choice(self) -> Node:
        parts = [self.sequence()]
        while self.skip("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.place < len(self.pattern) and self.pattern[self.place] not in "|)":
            part = self.atom()
            if found := _QUANTIFIER.match(self.pattern, self.place):
                self.place = found.end()
                part = self.repeat(part, found)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def repeat(self, part: Node, found: re.Match[str]) -> Node:
        if isinstance(part, Edge) or _QUANTIFIER.match(self.pattern, self.place) or self.skip("+"):
            raise self.refusal("a repetition of what cannot be repeated")
        if found[1]:
            return Repeat(part, int(found[1] == "+"), 1 if found[1] == "?" else None)
        least = int(found[2][:9])
        most = least if not found[3] else int(found[4][:9]) if found[4] else None
        if most is not None and most < least:
            raise self.refusal("a repetition whose bounds are the wrong way round")
        return Repeat(part, least, most)

    def atom(self) -> Node:
        one = self.take()
        if one == "(":
            return self.group()
        if one == "[":
            return self.set()
        if one == "\\":
            if self.pattern[self.place : self.place + 1] in ("p", "P"):
                found = re.compile(r"[pP]\{[\w=]+\}").match(self.pattern, self.place)
                if not found:
                    raise self.refusal("a class of Unicode without a name in braces")
                self.place = found.end()
                return Property(f"\\{found[0]}")
            return Characters(self.escape(inside=False, negated=False))
        if one in "^$":
            return Edge(one)
        if one == ".":
            return DOT
        if one in "*+?{}]":
            raise self.refusal(f"a {one} that is no character unless a \\ stands before it")
        return Characters(_of(one))

    def group(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.refusal(f"groups more than {_DEEPEST} deep")
        named = re.compile(r"\?:|\?<[A-Za-z_]\w*>").match(self.pattern, self.place)
        if named:
            self.place = named.end()
        elif self.pattern[self.place : self.place + 1] == "?":
            raise self.refusal("a group that looks around or sets flags")
        found = self.choice()
        if not self.skip(")"):
            raise self.refusal("a ( that nothing closes")
        self.depth -= 1
        return found

    def set(self) -> Node:
        negated = self.skip("^")
        found: list[tuple[int, int]] = []
        if self.pattern[self.place : self.place + 1] == "]":
            raise self.refusal("a class that begins with ], which is empty to some")
        while not self.skip("]"):
            low = self.member(negated)
            if (
                self.pattern[self.place : self.place + 1] == "-"
                and self.pattern[self.place + 1 : self.place + 2] != "]"
            ):
                self.place += 1
                high = self.member(negated)
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    raise self.refusal("a range between classes")
                if low[0][0] > high[0][0]:
                    raise self.refusal("a range whose ends are the wrong way round")
                low = ((low[0][0], high[0][0]),)
            found += low
        ranges = merged(found)
        if not (ranges := inverse(ranges) if negated else ranges):
            raise self.refusal("a class of no character")
        return Characters(ranges)

    def member(self, negated: bool) -> Ranges:
        one = self.take()
        return self.escape(inside=True, negated=negated) if one == "\\" else _of(one)

    def escape(self, *, inside: bool, negated: bool) -> Ranges:
        """What stands behind a backslash, which is taken."""
        if found := _NUMBER.match(self.pattern, self.place):
            self.place = found.end()
            return self.numbered(int(found[1] or found[2] or found[3], 16))
        one = self.take()
        if one in "dw" and not negated:
            return DIGITS if one == "d" else WORDS
        if one in "sS":
            return (ALL_SPACES if negated else SPACES) if one == "s" else inverse(SPACES if negated else ALL_SPACES)
        if one == "c" and self.pattern[self.place : self.place + 1].isalpha() and self.pattern[self.place].isascii():
            return _of(chr(ord(self.take()) % 32))
        if inside and one == "b":
            return _of("\b")
        if one in _NAMED and not (one == "0" and self.pattern[self.place : self.place + 1].isdigit()):
            return _of(_NAMED[one])
        if one.isalnum() or one == "_":
            raise self.refusal(f"\\{one}, which is read differently or not at all; write out what it stands for")
        return _of(one)

    def numbered(self, code: int) -> Ranges:
        if 0xD800 <= code <= 0xDBFF and (
            low := re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self.pattern, self.place)
        ):
            self.place = low.end()
            code = 0x10000 + (code - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00
        if code > LAST or 0xD800 <= code <= 0xDFFF:
            raise self.refusal("a number that is no character")
        return ((code, code),)


def firsts(node: Node) -> Ranges:
    """The characters that a text of the pattern may begin with; of classes of Unicode, all."""
    return merged(_firsts(node)[0])


def _firsts(node: Node) -> tuple[Ranges, bool]:
    """The same, and whether the text may be empty."""
    if isinstance(node, Characters):
        return node.ranges, False
    if isinstance(node, Repeat):
        found, empty = _firsts(node.part)
        return found, empty or node.least == 0
    if isinstance(node, Choice):
        parts = [_firsts(one) for one in node.parts]
        return merged(itertools.chain.from_iterable(one for one, _ in parts)), any(empty for _, empty in parts)
    if isinstance(node, Sequence):
        found = ()
        for part in node.parts:
            more, empty = _firsts(part)
            found += more
            if not empty:
                return found, False
        return found, True
    return (ANY.ranges, False) if isinstance(node, Property) else ((), True)
