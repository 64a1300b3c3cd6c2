"""Patterns written anew: for the whole of a text, and for what a text is within JSON."""

from __future__ import annotations

from typing import Literal

from ..counted import check_size
from ..patterns import (
    ANY,
    LAST,
    Characters,
    Choice,
    Edge,
    Node,
    Property,
    Ranges,
    Repeat,
    Sequence,
    inverse,
    read,
    without,
)

ESCAPED: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F))
"""What stands escaped in strings of JSON; engines write U+007F so, too, though it need not be."""
NUL: Ranges = ((0, 0),)
QUOTING: Ranges = ((0x22, 0x22), (0x5C, 0x5C))
"""llguidance takes a set with all control characters for one that has these as well, so other sets go without U+0000."""
SHORT = {0x22: '"', 0x5C: "\\\\", 8: "b", 9: "t", 10: "n", 12: "f", 13: "r"}
Within = Literal["text", "json", "unescaped"]
"""What a pattern is written for: texts as they are, for engines that put them into JSON; texts with the escapes of JSON; or
those texts alone that have none."""
_REST = Repeat(ANY, 0, None)


def whole(node: Node) -> Node:
    """The pattern for the whole text, which is to be found anywhere in it.

    Raises:
        ValueError: an anchor stands in the middle.
    """
    if isinstance(node, Choice):
        return Choice(tuple(map(whole, node.parts)))
    parts = list(node.parts) if isinstance(node, Sequence) else [node]
    if len(parts) == 1 and isinstance(parts[0], (Choice, Sequence)):
        return whole(parts[0])
    begins = ends = False
    while parts and parts[0] == Edge("^"):
        del parts[0]
        begins = True
    while parts and parts[-1] == Edge("$"):
        del parts[-1]
        ends = True
    if any(map(_anchored, parts)):
        raise ValueError("it has ^ or $ in its middle; let them stand at its beginning and end alone")
    return Sequence((*([] if begins else [_REST]), *parts, *([] if ends else [_REST])))


def _anchored(node: Node) -> bool:
    if isinstance(node, Repeat):
        return _anchored(node.part)
    return isinstance(node, Edge) or (isinstance(node, (Sequence, Choice)) and any(map(_anchored, node.parts)))


def written(pattern: str, within: Within) -> str:
    """The pattern with one meaning for every engine, between `^` and `$`.

    Raises:
        ValueError: see `patterns.read`; or it is too large once what it counts is written out.
    """
    check_size(pattern)
    return f"^{_group(whole(read(pattern)), within)}$"


def _text(node: Node, within: Within) -> str:
    if isinstance(node, Characters):
        return _characters(node.ranges, within)
    if isinstance(node, Sequence):
        return "".join(_group(one, within) if isinstance(one, Choice) else _text(one, within) for one in node.parts)
    if isinstance(node, Choice):
        return "|".join(_text(one, within) for one in node.parts)
    if isinstance(node, Repeat):
        return _group(node.part, within) + _count(node)
    if isinstance(node, Property) and within != "text":
        raise ValueError(f"{node.text} is not known to it; write out the characters")
    return node.text


def _group(node: Node, within: Within) -> str:
    text = _text(node, within)
    return text if isinstance(node, Property) or (isinstance(node, Characters) and within != "json") else f"(?:{text})"


def _count(node: Repeat) -> str:
    if node.most is None:
        return {0: "*", 1: "+"}.get(node.least, f"{{{node.least},}}")
    if (node.least, node.most) == (0, 1):
        return "?"
    return f"{{{node.least}}}" if node.least == node.most else f"{{{node.least},{node.most}}}"


def _characters(ranges: Ranges, within: Within) -> str:
    plain = without(ranges, NUL if within == "text" else ESCAPED)
    if within == "text" and not without(QUOTING, ranges):
        plain = ranges
    if within != "json":
        if not plain:
            raise ValueError("it asks for nothing but characters that JSON escapes, which it does not write")
        return _set(plain)
    parts = [_set(plain)] if plain else []
    for code in (code for low, high in ESCAPED for code in range(low, high + 1)):
        if any(low <= code <= high for low, high in ranges):
            parts.append(rf"\\{SHORT[code]}" if code in SHORT else rf"\\u{code:04x}")
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _set(ranges: Ranges) -> str:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _one(ranges[0][0])
    negated = ranges[-1][1] == LAST  # short, for engines that write out every character of a range
    shown = inverse(ranges) if negated else ranges
    if not shown:
        return f"[\\x00-{chr(LAST)}]"
    inside = "".join(_one(low) if low == high else f"{_one(low)}-{_one(high)}" for low, high in shown)
    return f"[{'^' * negated}{inside}]"


def _one(code: int) -> str:
    one = chr(code)
    if one in r"\.^$|?*+()[]{}-":
        return f"\\{one}"
    return f"\\x{code:02x}" if code < 32 or code == 127 else one
