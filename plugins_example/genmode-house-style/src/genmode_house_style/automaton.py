"""Finds whole words of a list in a stream of bytes, in any case.

A term is found where the characters beside it are no word characters, as `\\b` of regular expressions has it: only an
end of the term that is a word character itself asks for that. Word characters are ASCII letters, digits and `_`, and all
characters beyond ASCII but those of U+0080-00BF, U+2000-2BFF, U+3000-303F and U+1F000-1FFFF: signs, punctuation, emoji.
Bytes that make no character are signs too, as they are decoded.
A character stands for its lower, upper and title case, and a space for one blank of any kind, or two spaces.

The bytes are read by a deterministic automaton. A state is what of each term may have been read, and how many bytes ago
it began, and what the last character was. A term that is read to its end is open until the character behind it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Node = tuple[int, int, bytes, int]
"""Term, characters read, bytes of the next one, bytes since the term began."""
State = tuple[frozenset[Node], str]

OTHER, WORD = "", "w"
"""What the last character was; else the name of one that has begun, see `BEGUN`."""
BEGUN = {
    "e2": (range(0x80, 0xB0), "sign", "letter"), "e3": (range(0x80, 0x81), "sign", "letter"),
    "f0": (range(0x9F, 0xA0), "sign, 2 left", "letter, 2 left"),
    "sign": (range(0x80, 0xC0), OTHER, OTHER), "sign, 2 left": (range(0x80, 0xC0), "sign", "sign"),
    "letter": (range(0x80, 0xC0), WORD, WORD), "letter, 2 left": (range(0x80, 0xC0), "letter", "letter"),
    "letter, 3 left": (range(0x80, 0xC0), "letter, 2 left", "letter, 2 left"),
}  # fmt: skip
"""What follows a character that has begun with a byte of this range, and with another one from 0x80 to 0xBF."""
LEADS = {0xC2: "sign", 0xE2: "e2", 0xE3: "e3", 0xF0: "f0"}
BLANKS = (" ", "\n", "\t", "\r", "\r\n", "\u00a0", "  ")


def is_word(character: str) -> bool:
    """Whether a term's end asks for a boundary beside it."""
    return character.isalnum() or character == "_"


def spellings(character: str) -> frozenset[bytes]:
    """The bytes that a character of a term stands for."""
    if character.isspace():
        return frozenset(blank.encode() for blank in BLANKS)
    return frozenset(form.encode() for form in (
        character, character.lower(), character.upper(), character.title(), character.casefold(),
    ))  # fmt: skip


def most_bytes(term: str) -> int:
    """Bytes of the longest spelling of a term."""
    return sum(max(map(len, spellings(character))) for character in term)


def last_character(kind: str, byte: int) -> str:
    """What the last character is behind one more byte, where that is not `broken`."""
    if kind in BEGUN:
        those, inside, outside = BEGUN[kind]
        return inside if byte in those else outside
    if byte < 0x80:
        return WORD if is_word(chr(byte)) else OTHER
    if byte < 0xC2 or byte > 0xF4:
        return OTHER  # no character begins so: decoded as U+FFFD
    return LEADS.get(byte, "letter" if byte < 0xE0 else "letter, 2 left" if byte < 0xF0 else "letter, 3 left")


def broken(kind: str, byte: int) -> bool:
    """Whether the byte leaves a character unfinished, which is then decoded as U+FFFD."""
    return kind in BEGUN and not 0x80 <= byte < 0xC0


class Automaton:
    """Of one list of terms.

    Args:
        terms: not empty, without blanks at their ends; numbered as they come.
        wanted: numbers of those that it finds.

    Attributes:
        next: `[states, 256]`: the state behind a byte. State 0 is that before a text.
        found: `[states, 256]`: 0, or `len(terms) * bytes + term` for the term that is found with a byte, and how many
            bytes before the end of that byte it began; of several the one that began first.
        open: `[states]`: the same of a term that is read to its end and waits for what comes.
        closed: `[states]`: the state that has the same begun, and nothing open.
        alike: for each byte the first one that no state tells from it.
    """

    def __init__(self, terms: Sequence[str], wanted: Sequence[int]) -> None:
        self.wanted = wanted
        self.terms = [[spellings(character) for character in term] for term in terms]
        self.bounded = [(is_word(term[0]), is_word(term[-1])) for term in terms]
        self.alike = self._alike()
        self.next, self.found, self.open, self.closed = self._explored()

    def _explored(self) -> tuple[Ints, Ints, Ints, Ints]:
        numbers: dict[State, int] = {}
        states: list[State] = []

        def number(state: State) -> int:
            if state not in numbers:
                numbers[state] = len(states)
                states.append(state)
            return numbers[state]

        lines: list[tuple[list[int], list[int]]] = []
        opened: list[int] = []
        closed: list[int] = []
        number((frozenset(), OTHER))
        while len(lines) < len(states):
            nodes, kind = states[len(lines)]
            told = {byte: self._step((nodes, kind), byte) for byte in set(self.alike)}
            steps = {byte: (number(state), found) for byte, (state, found) in told.items()}
            lines.append(([steps[byte][0] for byte in self.alike], [steps[byte][1] for byte in self.alike]))
            ready = frozenset(node for node in nodes if node[1] == len(self.terms[node[0]]))
            opened.append(max((self._code(node[0], node[3]) for node in ready), default=0))
            closed.append(number((nodes - ready, kind)))
        return (
            np.array([line[0] for line in lines], dtype=np.int32), np.array([line[1] for line in lines], dtype=np.int32),
            np.array(opened, dtype=np.int32), np.array(closed, dtype=np.int32),
        )  # fmt: skip

    def _alike(self) -> list[int]:
        used = {byte for term in self.terms for forms in term for form in forms for byte in form}
        kinds = (OTHER, *BEGUN)
        seen: dict[tuple[object, ...], int] = {}
        found: list[int] = []
        for byte in range(256):
            told = ((last_character(kind, byte), broken(kind, byte)) for kind in kinds)
            found.append(seen.setdefault((byte if byte in used else -1, *told), byte))
        return found

    def _code(self, term: int, size: int) -> int:
        return len(self.terms) * size + term

    def _step(self, state: State, byte: int) -> tuple[State, int]:
        nodes, kind = state
        bounded = broken(kind, byte)
        kind = OTHER if bounded else kind
        after = last_character(kind, byte)
        going: set[Node] = set()
        found = 0
        for term, read, part, size in (*nodes, *self._beginning(kind)):
            if read == len(self.terms[term]):
                if bounded or after == OTHER:
                    found = max(found, self._code(term, size + 1))
                elif after != WORD:
                    going.add((term, read, b"", size + 1))
                continue
            part += bytes([byte])
            if part in self.terms[term][read]:
                if read + 1 == len(self.terms[term]) and not self.bounded[term][1]:
                    found = max(found, self._code(term, size + 1))
                else:
                    going.add((term, read + 1, b"", size + 1))
            if any(form.startswith(part) and form != part for form in self.terms[term][read]):
                going.add((term, read, part, size + 1))
        return (frozenset(going), after), found

    def _beginning(self, kind: str) -> Iterable[Node]:
        return ((term, 0, b"", 0) for term in self.wanted if kind == OTHER or not self.bounded[term][0])
