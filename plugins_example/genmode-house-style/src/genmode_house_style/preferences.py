"""What rows that went back are to write in place of a term."""

from __future__ import annotations

import torch
from torch import Tensor

import genmode
from genmode.text import taken_back


class Preferences:
    """Where each row went back last, and the tokens of the term that is preferred there.

    Args:
        context: the call.
        preferred: what to write for each term; empty for nothing.
        texts: the bytes of each token.
    """

    def __init__(self, context: genmode.Context, preferred: list[str], texts: list[bytes]) -> None:
        rows, device = context.rows, context.device
        self._place = torch.full((rows,), -1, device=device)  # where something is preferred
        self._wish = torch.zeros(rows, dtype=torch.long, device=device)  # and which line of `_wishes`
        lines = [_tokens(f"{blank}{text}" if text else "", context, texts) for text in preferred for blank in ("", " ")]
        width = max(1, *map(len, lines))
        self._wishes = torch.tensor([line + [-1] * (width - len(line)) for line in lines], device=device)
        self._blank = torch.tensor([text[:1].isspace() for text in texts], device=device)

    def prefer(self, scores: Tensor, history: genmode.History, bias: float) -> Tensor:
        """Raise the next token of a preferred term in rows that have followed it so far."""
        wishes = self._wishes[self._wish]  # [rows, width]
        written = (history.lengths - self._place)[:, None]
        places = torch.arange(wishes.shape[1], device=scores.device)
        columns = (self._place[:, None] + places).clamp(0, history.tokens.shape[1] - 1)
        agrees = (history.tokens.gather(1, columns) == wishes) | (places >= written)
        following = wishes.gather(1, written.clamp(0, wishes.shape[1] - 1))
        on = agrees.all(1, keepdim=True) & (self._place >= 0)[:, None] & (following >= 0)
        on = on & (written >= 0) & (written < wishes.shape[1])
        return scores.scatter_add_(1, following.clamp(min=0), bias * on)

    def note(self, history: genmode.History, counts: Tensor, terms: Tensor) -> None:
        """Rows went back by `counts` `[rows]` to where they are now, from these terms."""
        lengths, went = history.lengths, counts > 0
        self._place = torch.where(went, lengths, self._place.masked_fill(self._place > lengths, -1))
        blank = self._blank[taken_back(history).clamp(0, len(self._blank) - 1)[:, 0]]
        self._wish = torch.where(went, 2 * terms + blank, self._wish)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._place, self._wish = self._place[rows], self._wish[rows]


def _tokens(text: str, context: genmode.Context, texts: list[bytes]) -> list[int]:
    """The tokens that write exactly this text; none where the tokenizer would add a blank to it or leave one out."""
    for given in (text, text.strip()):
        tokens: list[int] = context.tokenizer.encode(given, add_special_tokens=False) if given else []
        if all(token < len(texts) for token in tokens) and b"".join(texts[t] for t in tokens) == text.encode():
            return tokens
    return []
