"""Where one row stands in a grammar, and which tokens it may take."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from genmode import host_sync

from .matchers import Matcher, Vocabulary, Words

FEW = 32
"""A stretch of text is forced only where the tokens that may come next are no more than this."""


class Row:
    """One row's matcher, and what has come since the row left the grammar.

    Attributes:
        beyond: tokens taken since the end of sequence or since a token that the grammar does not allow.
        dead: whether it was the latter.
        token: the token that the grammar does not allow.
        stuck: whether no token could have been allowed in its place.
        refused: whether the mask had allowed that token.
        over: whether the row is known to be finished, so that what it takes is padding.
    """

    __slots__ = ("_mask", "beyond", "dead", "matcher", "over", "refused", "stuck", "taken", "token", "vocabulary")

    def __init__(self, matcher: Matcher, vocabulary: Vocabulary) -> None:
        self.matcher, self.vocabulary = matcher, vocabulary
        self.taken = self.beyond = self.token = 0
        self.dead = self.over = self.stuck = self.refused = False
        self._mask: Words | None = None

    def copy(self) -> Row:
        """Another row in the same state."""
        twin = Row(self.matcher.copy(), self.vocabulary)
        twin.taken, twin.beyond, twin.token = self.taken, self.beyond, self.token
        twin.dead, twin.over, twin.stuck, twin.refused = self.dead, self.over, self.stuck, self.refused
        twin._mask = self._mask
        return twin

    def advance(self, token: int) -> None:
        """Take a token, whatever it is."""
        if self.beyond:
            self.beyond += 1
        elif token in self.vocabulary.ends and self.matcher.complete:
            self.beyond = 1
        elif self.vocabulary.text(token) and self.matcher.advance(token):
            self.taken += 1
            self._mask = None
        else:
            self.beyond, self.dead, self.token = 1, True, token
            self.stuck = self._mask is not None and not self._mask.any()
            self.refused = self._mask is not None and bool(self._mask[token // 32] >> token % 32 & 1)

    def back(self, count: int) -> None:
        """Take back the last `count` tokens."""
        outside = min(count, self.beyond)
        self.beyond -= outside
        if not self.beyond:
            self.dead = False
        if count > outside:
            self.matcher.back(count - outside)
            self.taken -= count - outside
            self._mask = None

    @property
    def open(self) -> bool:
        """Whether the row is still inside the grammar."""
        return not self.beyond

    @property
    def complete(self) -> bool:
        """Whether the row holds a whole text of the grammar, ended or not."""
        return not self.dead and (self.beyond > 0 or self.matcher.complete)

    def mask(self, ends: Words) -> Words:
        """`[words]`: the tokens that the row may take; an end where, and only where, the text is complete.

        A row that has ended may end again, and one that has left the grammar may take anything: what such rows
        take is padding, a draft to be taken back, or a hypothesis that cannot win.

        Args:
            ends: the mask of the ends of sequence.
        """
        if self.beyond:
            return np.full_like(ends, -1) if self.dead else ends
        if self._mask is None:
            words = np.empty_like(ends)
            self.matcher.fill(words)
            words &= ~ends
            if self.matcher.complete:
                words |= ends
            self._mask = words
        return self._mask

    def alone(self, ends: Words) -> bool:
        """Whether one token alone may come next."""
        return len(_few(self.mask(ends))) == 1

    def forced(self, ends: Words, limit: int) -> list[int]:
        """The tokens of the text that must follow, at most `limit`.

        Text is forced where every token that may come next is a beginning of the longest of them. Which tokens
        spell it is left open, unless only one may come; the tokenizer's own spelling is the best guess.
        """
        if not self.open:
            return []
        texts = self.vocabulary.texts
        tokens: list[int] = []
        first = self._mask = self.mask(ends)
        while len(tokens) < limit:
            ids = _few(self.mask(ends))
            spelled = sorted((texts[i] for i in ids), key=len)
            if not ids or not spelled[0] or not all(spelled[-1].startswith(one) for one in spelled):
                break
            tokens.append(next(i for i in ids if texts[i] == spelled[-1]))
            if not self.matcher.advance(tokens[-1]):
                raise RuntimeError(f"the engine allows token {tokens[-1]} and does not take it")
            self._mask = None
        self.matcher.back(len(tokens))
        self._mask = first
        return self._respelled(tokens)[:limit]

    def _respelled(self, tokens: list[int]) -> list[int]:
        texts = self.vocabulary.texts
        whole = b"".join(texts[i] for i in tokens)
        try:
            ids = self.vocabulary.encode(whole.decode())
        except UnicodeDecodeError:
            return tokens
        same = all(i < len(texts) for i in ids) and b"".join(texts[i] for i in ids) == whole
        return ids if same else tokens


def _few(words: Words) -> list[int]:
    """The ids of a mask; none if they are more than `FEW`."""
    places = np.flatnonzero(words)
    if not 0 < len(places) <= FEW:
        return []
    bits = np.unpackbits(words[places].view(np.uint8), bitorder="little").reshape(len(places), 32)
    where, bit = bits.nonzero()
    return (places[where] * 32 + bit).tolist() if len(where) <= FEW else []


def forbid_all_but(scores: Tensor, allowed: Words) -> Tensor:
    """Set the scores that the masks `allowed` `[rows, words]` do not name to -inf, in place.

    Each byte of a mask stands for eight numbers, 0 or -inf, that are added: several times as fast on a CPU as bits.

    Args:
        scores: `[rows, vocab]`, of any floating type and device, none of them +inf.
    """
    octets = host_sync.to_device(torch.from_numpy(allowed.view(np.uint8)), scores.device).int()  # [rows, 4 * words]
    added = torch.nn.functional.embedding(octets, _eights(scores.device, scores.dtype)).flatten(1)  # [rows, 32 * words]
    return scores.add_(added[:, : scores.shape[1]])


@functools.cache
def _eights(device: torch.device, dtype: torch.dtype) -> Tensor:
    """`[256, 8]`: for each byte and each of its bits, lowest first, 0 where it is set and -inf where not."""
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
    return torch.where(bits == 1, 0.0, -torch.inf).to(device, dtype)
