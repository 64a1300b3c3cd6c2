"""FreshWords: greedy, but what was decoded a moment ago is drawn anew.

With s the scores after all processors, v = argmax s, and W the last `fresh_words_window` tokens that the row has
decoded, a row continues with

    v                     if v is not in W
    a draw of softmax(s)  otherwise

Ties of the argmax are broken as `torch.argmax` breaks them. Beams and drafting are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field

import genmode

__all__ = ["FreshWords"]


class FreshWords(genmode.Strategy):
    """Greedy, but a token that was decoded a moment ago is drawn anew."""

    contract_version = 1
    name = "fresh_words"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True}

    class Params(genmode.Params):
        """Parameters of `fresh_words`; each is a key of the generation config."""

        fresh_words_window: int = Field(4, ge=1, le=256, description="how many last tokens count as a moment ago")

    def decode(self, session: genmode.Session, params: Any) -> None:
        """Decode until all rows are done."""
        window = params.fresh_words_window
        back = torch.arange(-window, 0, device=session.device)
        for step in session.steps():
            best = step.scores.argmax(-1)  # [rows]
            columns = session.history.lengths[:, None] + back  # [rows, window]
            recent = session.history.tail(window)
            again = ((recent == best[:, None]) & (columns >= session.history.prompt)).any(1)
            step.commit(torch.where(again, step.sample(), best))
