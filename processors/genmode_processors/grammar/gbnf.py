"""GBNF without escapes by number, which its translators read differently.

llama.cpp's notation has `\\xHH`, `\\uHHHH` and `\\UHHHHHHHH` in literals and classes; in a class every character but a
leading `^` and a `-` in the middle stands for itself, and `.` is any character, line ends included
(https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md). Other engines take classes for those of a
regex, where `&&`, `--` or `~~` mean something else, lose leading zeros of `\\u`, or read on behind the two digits of
`\\x` as long as there are more. Here each is written so that all read the same: no digit or letter follows `\\xHH`.
"""

from __future__ import annotations

import re

_PART = re.compile(
    r'(?P<comment>#[^\r\n]*)|"(?P<literal>(?:\\.|[^"\\])*)"|\[(?P<set>(?:\\.|[^\]\\])*)\]|(?P<any>\.)', re.S
)
_ONE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|([^\\])", re.S)
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "[": "[", "]": "]"}
_IN_LITERAL = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def plain(text: str) -> str:
    """The grammar with characters in place of numbers.

    Raises:
        ValueError: an escape that GBNF does not have, or a number that is no character.
    """
    return _PART.sub(_rewritten, text)


def _rewritten(found: re.Match[str]) -> str:
    if found["comment"] is not None:
        return found[0]
    if found["any"] is not None:
        return "[\\x00-\U0010ffff]"
    if found["literal"] is not None:
        return _literal([one for one, _ in _characters(found["literal"])])
    text = found["set"]
    inverse = text.startswith("^")
    members = _characters(text[inverse:])
    last = len(members) - 1
    inside = "".join(
        "-" if one == "-" and not escaped and 0 < place < last else _in_set(one)
        for place, (one, escaped) in enumerate(members)
    )
    return f"[{'^' * inverse}{inside}]"


def _literal(characters: list[str]) -> str:
    """A literal, or several in a row: one ends behind each `\\xHH`."""
    parts = [""]
    for one in characters:
        parts[-1] += _in_literal(one)
        if parts[-1].endswith(f"\\x{ord(one):02x}"):
            parts.append("")
    parts = [f'"{part}"' for part in parts if part] or ['""']
    return parts[0] if len(parts) == 1 else f"({' '.join(parts)})"


def _characters(text: str) -> list[tuple[str, bool]]:
    """The characters of a literal or a class, each with whether it was escaped."""
    found: list[tuple[str, bool]] = []
    for one in _ONE.finditer(text):
        number = one[1] or one[2] or one[3]
        if number is not None:
            code = int(number, 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise ValueError(f"{one[0]} is no character")
            found.append((chr(code), True))
        elif one[4] is not None:
            if one[4] not in _SIMPLE:
                raise ValueError(f'{one[0]} is no escape of GBNF; it has \\n \\r \\t \\" \\\\ \\[ \\] \\x \\u \\U')
            found.append((_SIMPLE[one[4]], True))
        else:
            found.append((one[5], False))
    return found


def _in_literal(one: str) -> str:
    if one in _IN_LITERAL:
        return _IN_LITERAL[one]
    return f"\\x{ord(one):02x}" if one < " " or one == "\x7f" else one


def _in_set(one: str) -> str:
    return one if one > "\x7f" else f"\\x{ord(one):02x}"
