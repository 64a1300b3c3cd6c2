"""Automata that read a token at a time, kept with the tokenizer that they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genmode.text import TokenizerCache, plain_bytes

from .automaton import Automaton

LONG = 1 << 20
"""More bytes than a token has."""
KEPT = 8
"""So many tables are kept for each tokenizer."""


def tables_of(
    tokenizer: Any, size: int, silent: Sequence[int], terms: Sequence[str], lists: Sequence[Sequence[str]]
) -> Tables:
    """The tables of lists of terms.

    Args:
        tokenizer: of the model.
        size: of the vocabulary.
        silent: tokens that write nothing, besides the tokenizer's special ones.
        terms: all that any list has.
        lists: those of each list.
    """
    numbers = {term: number for number, term in enumerate(terms)}
    key = (len(tokenizer), size, tuple(silent), tuple(terms), tuple(map(tuple, lists)))
    return _kept.get(
        tokenizer,
        key,
        lambda: Tables(
            [Automaton(terms, [numbers[term] for term in one]) for one in lists], plain_bytes(tokenizer, size, silent)
        ),
    )


class Tables:
    """Automata side by side, read a token at a time: states of all are numbered together.

    Args:
        automata: of the lists of one call, over the same number of terms.
        texts: the bytes of each token.

    Attributes:
        texts: the bytes of each token.
        begin: `[lists]`: the state before a text.
        line: `[vocab]`: tokens of one line do the same.
        after: `[lines, states]`: the state behind a token.
        found: `[lines, states]`: as of `Automaton`, from the token's end, 0 for none.
        open, closed: `[states]`, as of `Automaton`.
    """

    def __init__(self, automata: list[Automaton], texts: list[bytes]) -> None:
        self.texts = texts
        sizes = np.cumsum([0, *(len(one.next) for one in automata)])
        pairs = list(zip(automata, sizes, strict=False))
        self.begin = sizes[:-1].astype(np.int64)
        self.open = np.concatenate([one.open for one in automata])
        self.closed = np.concatenate([one.closed + first for one, first in pairs])
        following = np.concatenate([one.next + first for one, first in pairs])
        found = np.concatenate([one.found for one in automata])
        terms = len(automata[0].terms)
        apart = list(zip(*(one.alike for one in automata), strict=True))
        alike = bytes(apart.index(one) for one in apart)  # so that tokens that differ in other letters are one
        texts = [text.translate(alike) for text in texts]
        # tokens in order share what their common beginning does: [(states, codes from the token's begin)]
        trail = [(np.arange(sizes[-1]), np.zeros(sizes[-1], dtype=np.int64))]
        kinds: dict[bytes, int] = {}
        place_of: dict[bytes, int] = {}
        last = b""
        for text in sorted(set(texts)):
            shared = (place for place, (one, other) in enumerate(zip(last, text, strict=False)) if one != other)
            del trail[1 + next(shared, min(len(last), len(text))) :]
            for place in range(len(trail) - 1, len(text)):
                state, code = trail[-1]
                told = found[state, text[place]]
                code = np.maximum(code, np.where(told > 0, told + terms * (LONG - 1 - place), 0))
                trail.append((following[state, text[place]], code))
            state, code = trail[-1]
            code = np.where(code > 0, code + terms * (len(text) - LONG), 0)
            place_of[text] = kinds.setdefault(np.stack([state, code]).tobytes(), len(kinds))
            last = text
        rows = np.stack([np.frombuffer(kind, dtype=np.int64).reshape(2, -1) for kind in kinds])
        self.after, self.found = rows[:, 0], rows[:, 1]
        self.line = np.array([place_of[text] for text in texts], dtype=np.int64)


_kept: TokenizerCache[Tables] = TokenizerCache(KEPT)
