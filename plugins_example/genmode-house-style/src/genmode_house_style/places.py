"""Where rows went back: what is forbidden there, what is preferred, and how often they tried."""

from __future__ import annotations

import torch
from torch import Tensor

import genmode


class Places:
    """Of all rows of a call.

    Args:
        session: the call.
        retries: so often a row goes back without becoming longer than before.
        preferred: what to write for each term; empty for nothing.
        texts: the bytes of each token.
    """

    def __init__(self, session: genmode.Session, retries: int, preferred: list[str], texts: list[bytes]) -> None:
        rows, device = session.rows, session.device
        self._retries = retries
        self._lengths = torch.full((rows, retries), -1, device=device)  # of the row where the token is forbidden
        self._tokens = torch.zeros(rows, retries, dtype=torch.long, device=device)
        self._noted = torch.zeros(rows, dtype=torch.long, device=device)  # the oldest gives way
        self._tries = torch.zeros(rows, dtype=torch.long, device=device)
        self._furthest = torch.zeros(rows, dtype=torch.long, device=device)  # the end from which the row went back
        self._place = torch.full((rows,), -1, device=device)  # where something is preferred
        self._wish = torch.zeros(rows, dtype=torch.long, device=device)  # and which line of `_wishes`
        lines = [_tokens(f"{blank}{text}" if text else "", session, texts) for text in preferred for blank in ("", " ")]
        width = max(1, *map(len, lines))
        self._wishes = torch.tensor([line + [-1] * (width - len(line)) for line in lines], device=device)
        self._blank = torch.tensor([text[:1].isspace() for text in texts], device=device)

    def forbid(self, scores: Tensor, history: genmode.History) -> Tensor:
        """Mask what led to a term from where each row is, as long as that leaves it a token."""
        here = self._lengths == history.lengths[:, None]  # [rows, retries]
        banned = torch.zeros_like(scores).scatter_add_(1, self._tokens, here.to(scores.dtype)) > 0
        left = (scores.isfinite() & ~banned).any(1, keepdim=True)
        return scores.masked_fill_(banned & left, -torch.inf)

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

    def stuck(self, lengths: Tensor) -> Tensor:
        """Whether a row of so many tokens has gone back too often to do it again: `[rows]`, bool."""
        return (self._tries >= self._retries) & (lengths < self._furthest)

    def note(self, history: genmode.History, counts: Tensor, terms: Tensor) -> None:
        """Rows went back by `counts` `[rows]` to where they are now, from these terms."""
        lengths, went = history.lengths, counts > 0
        gone = lengths[:, None]
        # What was forbidden further on followed tokens that are gone.
        self._lengths.masked_fill_(self._lengths > gone, -1)
        end = lengths + counts
        self._tries = torch.where(went, torch.where(end <= self._furthest, self._tries, 0) + 1, self._tries)
        self._furthest = torch.where(went, torch.maximum(self._furthest, end), self._furthest)
        column = lengths.clamp(max=history.tokens.shape[1] - 1)[:, None]
        first = history.tokens.gather(1, column)  # what was taken back still stands behind the row
        slot = (self._noted % self._retries)[:, None]
        self._lengths.scatter_(1, slot, torch.where(went[:, None], gone, self._lengths.gather(1, slot)))
        self._tokens.scatter_(1, slot, torch.where(went[:, None], first, self._tokens.gather(1, slot)))
        self._noted = self._noted + went
        self._place = torch.where(went, lengths, self._place.masked_fill(self._place > lengths, -1))
        blank = self._blank[first.clamp(0, len(self._blank) - 1)[:, 0]]
        self._wish = torch.where(went, 2 * terms + blank, self._wish)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        for name in ("_lengths", "_tokens", "_noted", "_tries", "_furthest", "_place", "_wish"):
            setattr(self, name, getattr(self, name)[rows])


def _tokens(text: str, session: genmode.Session, texts: list[bytes]) -> list[int]:
    """The tokens that write exactly this text; none where the tokenizer would add a blank to it or leave one out."""
    for given in (text, text.strip()):
        tokens: list[int] = session.tokenizer.encode(given, add_special_tokens=False) if given else []
        if all(token < len(texts) for token in tokens) and b"".join(texts[t] for t in tokens) == text.encode():
            return tokens
    return []
