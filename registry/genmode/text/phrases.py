"""Phrases in text, found token by token (Aho and Corasick 1975).

The automaton reads bytes: its state is the longest end of the text that begins a phrase. A token is many
bytes, so for each token and state the next state is tabled, and whether a phrase ended inside the token.
A step is then one look-up for each row, on the device, whatever the tokenization; and phrases may begin
and end in the midst of tokens and of characters.

Tokens whose bytes the phrases cannot tell apart share a line of the table: bytes that occur in no phrase are
all one, and runs of them are one byte long.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .tokenizer_cache import TokenizerCache
from .vocabulary_bytes import token_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ..contract import History

    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

KEPT = 8
"""So many tables are kept for each tokenizer."""

TEXTLESS = 8
"""So many tokens without text may stand inside a phrase when a state is found again from the row's end."""


def byte_automaton(phrases: Sequence[bytes]) -> tuple[Ints, Ints]:
    """Next state of each state and byte, `[states, 256]`, and the bytes of the shortest phrase that each ends, `[states]`.

    A state that ends no phrase has 0.

    Args:
        phrases: at least one, none empty.
    """
    children: list[dict[int, int]] = [{}]
    ends = [0]
    for phrase in phrases:
        state = 0
        for byte in phrase:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                ends.append(0)
            state = children[state][byte]
        ends[state] = len(phrase)
    after = np.zeros((len(children), 256), dtype=np.int64)
    fallback = [0] * len(children)
    queue = [0]
    for state in queue:  # breadth first: a state's fallback is shorter, hence complete
        if state:
            after[state] = after[fallback[state]]
        for byte, child in children[state].items():
            fallback[child] = int(after[state, byte])
            after[state, byte] = child
            ends[child] = ends[fallback[child]] or ends[child]  # a fallback is shorter
            queue.append(child)
    return after, np.array(ends, dtype=np.int64)


class PhraseTable:
    """For each token and state: the next state, and whether a phrase ends inside the token.

    Attributes:
        longest: bytes of the longest phrase.
        lines: `[tokens]`, which line of the table each token has.
        after: `[lines, states]`, next state.
        ended: `[lines, states]`, bool.
        before: `[lines, states]`: bytes before the token that belong to the phrase; the fewest if several end in it,
            0 if the phrase begins inside the token, or if none ends.
    """

    def __init__(self, phrases: Sequence[bytes], texts: Sequence[bytes]) -> None:
        self.longest = max(map(len, phrases))
        automaton, ends = byte_automaton(phrases)
        known: dict[bytes, int] = {}
        self.lines: Ints = np.array(
            [known.setdefault(text, len(known)) for text in simplified(phrases, texts)], dtype=np.int64
        )
        self.after, self.ended, self.before = read_tokens(automaton, ends, list(known))

    def completing(self) -> list[Ints]:
        """For each state, the tokens in which a phrase ends."""
        return [np.flatnonzero(self.ended[self.lines, state]) for state in range(self.ended.shape[1])]


_tables: TokenizerCache[PhraseTable] = TokenizerCache(KEPT)


def phrase_table(phrases: Sequence[str], tokenizer: Any) -> PhraseTable:
    """The table of these phrases for a tokenizer; the last few of each tokenizer are kept."""
    texts = token_bytes(tokenizer)
    return _tables.get(
        tokenizer, (len(texts), *phrases), lambda: PhraseTable([phrase.encode() for phrase in phrases], texts)
    )


def simplified(phrases: Sequence[bytes], texts: Sequence[bytes]) -> list[bytes]:
    """The texts with each run of bytes that no phrase has as one byte."""
    used = set(b"".join(phrases))
    other = next((byte for byte in range(256) if byte not in used), None)
    if other is None:
        return list(texts)
    table = bytes(byte if byte in used else other for byte in range(256))
    runs = re.compile(re.escape(bytes([other])) + b"+")
    return [runs.sub(lambda found: found[0][:1], text.translate(table)) for text in texts]


def read_tokens(automaton: Ints, ends: Ints, texts: list[bytes]) -> tuple[Ints, Bools, Ints]:
    """`after`, `ended` and `before` of `PhraseTable`, one line for each text."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    width = len(texts[order[0]]) if order else 0
    data = np.zeros((len(texts), width), dtype=np.int64)
    for line, i in enumerate(order):
        data[line, : len(texts[i])] = np.frombuffer(texts[i], dtype=np.uint8)
    lengths = np.array([len(texts[i]) for i in order])
    state = np.tile(np.arange(len(automaton)), (len(texts), 1))
    ended = np.zeros(state.shape, dtype=np.bool_)
    before = np.full(state.shape, np.iinfo(np.int64).max)
    for at in range(width):
        count = int(np.searchsorted(-lengths, -at))  # so many texts are longer than `at`
        state[:count] = automaton[state[:count], data[:count, at, None]]
        length = ends[state[:count]]
        ended[:count] |= length > 0
        outside = np.where(length > 0, np.maximum(length - at - 1, 0), before[:count])
        before[:count] = np.minimum(before[:count], outside)
    back = np.empty(len(texts), dtype=np.int64)
    back[order] = np.arange(len(texts))
    return state[back], ended[back], np.where(ended, before, 0)[back]


class PhraseTracker:
    """The automaton's state of each row of a history, kept from step to step.

    Args:
        table: the phrases.
        device: of the tokens.
    """

    def __init__(self, table: PhraseTable, device: Any) -> None:
        self._span = table.longest + TEXTLESS
        self._lines = torch.from_numpy(np.append(table.lines, len(table.after))).to(device)
        # An id without text, of the last line, changes no state. Each entry: 2 * next state + ended.
        entries = np.empty((len(table.after) + 1, table.after.shape[1]), dtype=np.int32)
        entries[:-1] = 2 * table.after + table.ended
        entries[-1] = 2 * np.arange(table.after.shape[1])
        self._table = torch.from_numpy(entries).to(device)
        self._state: Tensor | None = None  # [rows], long
        self._length: int | None = None  # of all rows when the state was found

    def update(self, history: History) -> tuple[Tensor, Tensor]:
        """Read what came since the last call, or the ends of the rows where that is not known.

        Returns:
            The state, `[rows]`, long, and whether a phrase ended in what was read of the output, `[rows]`, bool.
        """
        steps = -1
        if self._state is not None and self._length is not None and history.level is not None:
            steps = history.level - self._length
        if 0 <= steps <= self._span:
            state, ended = self._read(history, steps, self._state)
        else:
            state, ended = self.scan(history)
        self._state, self._length = state, history.level
        return state, ended

    def scan(self, history: History) -> tuple[Tensor, Tensor]:
        """The same for any rows, from as many tokens at their ends as the longest phrase has bytes."""
        return self._read(history, min(self._span, history.tokens.shape[1]), None)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        if self._state is not None:
            self._state = self._state[rows]

    def rollback(self) -> None:
        """Rows went back: find the state again."""
        self._state = self._length = None

    def _read(self, history: History, steps: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Go on from `state` `[rows]`, long, or from none, over the last `steps` tokens of each row."""
        if state is None:
            state = torch.zeros(history.rows, dtype=torch.long, device=history.tokens.device)
        ended = torch.zeros_like(state, dtype=torch.bool)
        if steps == 0:
            return state, ended
        column = torch.arange(-steps, 0, device=state.device) + history.lengths[:, None]  # [rows, steps]
        counts, output = column >= history.starts[:, None], column >= history.prompt
        lines = self._lines[history.tail(steps).clamp(0, len(self._lines) - 1)]
        for step in range(steps):
            entry = self._table[lines[:, step], state].long()
            state = torch.where(counts[:, step], entry >> 1, state)
            ended = ended | (output[:, step] & (entry & 1).bool())
        return state, ended
