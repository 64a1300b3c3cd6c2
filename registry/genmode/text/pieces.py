"""The text of a row while its tokens come: each piece as soon as its characters are whole.

A token's text may depend on those before it, so each piece is what tokens add to the text from the piece before on. What
ends in the middle of a character, which decodes to U+FFFD, waits for the tokens that complete it. Languages without
spaces come token by token like others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

UNFINISHED = "\ufffd"
"""What tokenizers put for bytes that are no character, or not yet."""


class TextPieces:
    """The text of one row, in pieces.

    Args:
        tokenizer: with `decode`. Special tokens are left out of the text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = 0
        """How many of the ids are in pieces; they are the last piece and what came behind it."""

    def add(self, ids: Iterable[int]) -> str:
        """The next piece, once these tokens have come; empty while a character is not whole."""
        self._ids.extend(ids)
        piece = self._next()
        return "" if piece.endswith(UNFINISHED) else self._tell(piece)

    def rest(self) -> str:
        """What is left when no more tokens come."""
        return self._tell(self._next())

    def _next(self) -> str:
        return self._text(self._ids)[len(self._text(self._ids[: self._told])) :]

    def _tell(self, piece: str) -> str:
        if piece:
            self._ids, self._told = self._ids[self._told :], len(self._ids) - self._told
        return piece

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text
