"""Where rows stand at the end of a step of their text: behind every n tokens, a sentence, or a line.

A line ends with a token that has a line break in it. A sentence ends with a line, and with a token whose text, closing
quotes and brackets aside, ends in one of `. ! ? … 。 ！ ？`; "3.14" in three tokens therefore ends one. A token of such
signs or white space alone right behind an end belongs to what ended. Signs that are split over several tokens are not seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..errors import ParameterError
from .vocabulary_bytes import plain_bytes

if TYPE_CHECKING:
    from ..contract import History, Session

CLOSING = r"""["'”’»)\]}*_]*"""
SENTENCE_END = re.compile(rf"[.!?…。！？]{CLOSING}\s*$")
"""Found in a token's text with which a sentence ends."""
SENTENCE_SIGNS = re.compile(r"""[.!?…。！？"'”’»)\]}*_\s]+$""")
"""Matches a token's text that goes on with the end of a sentence."""


class Boundaries:
    """Tells of each row whether its last token ends a step. Reads the history alone, so it needs to be told of nothing.

    Args:
        where: a number of tokens, at least 1; "sentence" or "line".
        session: the call.

    Raises:
        ParameterError: the text is asked for, and the call has no tokenizer.
    """

    def __init__(self, where: int | Literal["sentence", "line"], session: Session) -> None:
        self._every = where if isinstance(where, int) else 0
        if isinstance(where, int):
            return
        if session.tokenizer is None:
            raise ParameterError(
                f"steps that end with a {where} need the tokenizer: pass tokenizer= to generate, or take a number of tokens"
            )
        read = plain_bytes(session.tokenizer, session.vocab_size, session.eos_token_ids)
        texts = [one.decode(errors="replace") for one in read]
        ends = ["\n" in one or (where == "sentence" and bool(SENTENCE_END.search(one))) for one in texts]
        signs = [bool(SENTENCE_SIGNS.match(one)) if where == "sentence" else one.isspace() for one in texts]
        self._ends = torch.tensor(ends, device=session.device)  # [vocab]
        self._goes_on = self._ends & torch.tensor(signs, device=session.device)

    def reached(self, history: History) -> Tensor:
        """Which rows stand at a boundary, `[rows]`, bool; those that have decoded nothing do not."""
        decoded = history.lengths - history.prompt
        if self._every:
            return (decoded > 0) & (decoded % self._every == 0)
        before, last = history.tail(2).clamp(0, len(self._ends) - 1).unbind(1)
        again = self._goes_on[last] & self._ends[before] & (decoded > 1)
        return self._ends[last] & ~again & (decoded > 0)
