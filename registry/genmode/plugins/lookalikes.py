"""Names that a reader takes for another's: of distributions and of components.

Names are compared by a skeleton: lower case, without separators, with letters and digits that look alike made one. Nothing
is refused for it; `genmode doctor` tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from .entries import Entry, canonical
from .identity import HOST

_SAME = (("rn", "m"), ("vv", "w"), ("0", "o"), ("1", "l"), ("i", "l"), ("5", "s"))


def skeleton(name: str) -> str:
    """What is left of a name for somebody who reads fast."""
    left = canonical(name).replace("-", "")
    for seen, read in _SAME:
        left = left.replace(seen, read)
    return left


def one_apart(first: str, second: str) -> bool:
    """Whether one letter more, less or other, or two neighbours exchanged, make one word the other."""
    short, long = sorted((first, second), key=len)
    if len(long) - len(short) > 1 or short == long:
        return False
    begin = next((n for n, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[begin:] == long[begin + 1 :]
    swapped = short[:begin] + short[begin + 1 : begin + 2] + short[begin : begin + 1] + short[begin + 2 :]
    return short[begin + 1 :] == long[begin + 1 :] or swapped == long


def lookalikes(entries: Iterable[Entry]) -> list[str]:
    """One sentence for each pair of distributions, or of components of two distributions, with names to be mixed up."""
    entries = list(entries)
    homes = sorted({entry.distribution for entry in entries} | {HOST})
    by_skeleton: dict[str, list[str]] = {}
    for home in homes:
        by_skeleton.setdefault(skeleton(home), []).append(home)
    groups = [alike for _, alike in sorted(by_skeleton.items()) if len(alike) > 1]
    groups += [[HOST, home] for home in homes if one_apart(HOST, home) and skeleton(home) != skeleton(HOST)]
    told = [
        f"the distributions {' and '.join(alike)} are easily taken for each other; are all meant?" for alike in groups
    ]
    by_look: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for entry in entries:
        by_look.setdefault((entry.kind, skeleton(entry.name)), set()).add((entry.name, entry.distribution))
    for (kind, _), alike in sorted(by_look.items()):
        if len({name for name, _ in alike}) > 1 and len({home for _, home in alike}) > 1:
            names = " and ".join(f"{name!r} of {home}" for name, home in sorted(alike))
            told.append(f"{kind}: {names} are easily taken for each other; are all meant?")
    return told
