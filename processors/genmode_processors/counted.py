"""What a pattern counts: `((a{1000}){1000}){1000}` has ten characters and asks for a thousand million."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST = 100_000
"""Characters of a pattern, once what it counts is written out."""
PART = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<open>\((?:\?(?:P?<\w+>|<?[=!]|[\w-]*:))?)|(?P<close>\))|(?P<or>\|)"
    r"|(?P<star>[*+?])|\{(?P<least>[0-9]*)(?P<comma>,)?(?P<most>[0-9]*)\}|.",
    re.S,
)
"""A pattern's parts: each is an escape, a class, the beginning of a group, a repetition, or one character."""


@dataclass(frozen=True)
class Count:
    """What a pattern counts.

    Attributes:
        size: characters, once all is written out.
        nested: of repetitions between two bounds that stand within each other, the product of the upper ones.
    """

    size: int
    nested: int


def count(pattern: str) -> Count:
    """Count without a grammar of patterns, since each engine has its own."""
    open_groups: list[list[Count]] = [[]]
    for found in PART.finditer(pattern):
        parts = open_groups[-1]
        if found["open"]:
            open_groups.append([])
        elif found["close"] and len(open_groups) > 1:
            open_groups.pop()
            open_groups[-1].append(_together(parts))
        elif found["least"] or found["most"]:
            least, most = int(found["least"] or 0), int(found["most"] or 0)
            inner = parts.pop() if parts else Count(0, 1)
            between = most if found["comma"] and most > least else 1
            parts.append(Count(inner.size * max(1, least, most), inner.nested * between))
        elif not (found["star"] or found["or"]):
            parts.append(Count(1, 1))
    return _together([_together(parts) for parts in open_groups])


def _together(parts: list[Count]) -> Count:
    return Count(sum(part.size for part in parts), max((part.nested for part in parts), default=1))


def check_size(pattern: str) -> None:
    """Refuse a pattern that is too large once what it counts is written out.

    Raises:
        ValueError: says how large.
    """
    size = count(pattern).size
    if size > MOST:
        raise ValueError(
            f"the pattern {pattern[:80]!r} has {size} characters once what it counts is written out; at most {MOST}"
        )
