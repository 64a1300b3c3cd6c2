"""A draft model with a tokenizer of its own reads the rows' text: its tokens for each row, kept up to date.

Rows are token lists on the host, since only the tokenizers know text. What the draft model has in its cache
and still stands is not run again: a row goes back to where its new tokens differ from what was fed. All rows
are fed equally many tokens, those of the row that needs most.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genmode

LONGER = 4
"""A text may have so many times as many tokens for the draft model."""


class Streams:
    """The draft model's own tokens of every row.

    Args:
        session: the session, before its first step.
        model: the draft model.

    Attributes:
        rows: what each row reads in the draft model's tokens.
    """

    def __init__(self, session: genmode.Session, model: Any) -> None:
        self.session, self.model = session, model
        self.rows: list[list[int]] = [[] for _ in range(session.rows)]
        self._fed: list[list[int]] = []
        self._padding: list[int] = []
        self._draft_model: Any = None

    def begin(self) -> Tensor:
        """Logits behind each row's last token: `[rows, vocabulary of the draft model]`, float32."""
        if self._draft_model is None:
            return self._open()
        common = [shared(fed, row) for fed, row in zip(self._fed, self.rows, strict=True)]
        behind = max(1, max(len(row) - kept for row, kept in zip(self.rows, common, strict=True)))
        if behind > min(len(row) + pad for row, pad in zip(self.rows, self._padding, strict=True)):
            return self._open()
        self._fed = [list(row) for row in self.rows]
        logits: Tensor = self._draft_model.catch_up(self._history(), behind)
        return logits

    def feed(self, tokens: Tensor) -> Tensor:
        """Each row goes on with the guess `tokens` `[rows]`, long, on the session's device."""
        for fed, token in zip(self._fed, tokens.tolist(), strict=True):
            fed.append(token)
        logits: Tensor = self._draft_model.feed(tokens)
        return logits

    def _open(self) -> Tensor:
        """Read everything anew."""
        if self._draft_model is not None:
            self._draft_model.close()
        longest = max(len(row) for row in self.rows)
        self._padding = [longest - len(row) for row in self.rows]
        self._fed = [list(row) for row in self.rows]
        history = self._history()
        mask = torch.arange(longest, device=history.tokens.device) >= history.starts[:, None]
        more = LONGER * max(1, self.session.max_length - int(self.session.history.lengths.min()))
        self._draft_model = self.session.draft_model(self.model, history.tokens, mask, longest + more)
        logits: Tensor = self._draft_model.catch_up(history, 0)
        return logits

    def _history(self) -> genmode.History:
        device = self.session.device
        lengths = [len(row) + pad for row, pad in zip(self.rows, self._padding, strict=True)]
        width = max(lengths)
        rows = [[0] * pad + row for row, pad in zip(self.rows, self._padding, strict=True)]
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        starts = torch.tensor(self._padding, device=device)
        level = width if min(lengths) == width else None
        return genmode.History(tokens, torch.tensor(lengths, device=device), starts, 0, level, width)


class Texts:
    """The rows' own tokens on the host, read once each.

    Attributes:
        rows: tokens of each row, without its left padding.
    """

    def __init__(self, session: genmode.Session) -> None:
        self.session = session
        self.rows: list[list[int]] = [[] for _ in range(session.rows)]
        self._starts: list[int] = session.history.starts.tolist()

    def update(self) -> list[list[int]]:
        """What each row has got since the last call."""
        history = self.session.history
        done = min(start + len(row) for start, row in zip(self._starts, self.rows, strict=True))
        tail = history.tokens[:, done:].tolist()
        new: list[list[int]] = []
        for row, start, end, tokens in zip(self.rows, self._starts, history.lengths.tolist(), tail, strict=True):
            new.append(tokens[start + len(row) - done : end - done])
            row.extend(new[-1])
        return new


def shared(one: list[int], other: list[int]) -> int:
    """How many tokens two lists begin with in common."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def check_tokenizers(assistant: Any, tokenizer: Any, assistant_tokenizer: Any, vocabularies: tuple[int, int]) -> bool:
    """Whether a draft model has tokens of its own.

    Args:
        assistant: the draft model.
        tokenizer, assistant_tokenizer: as the call gives them, or None.
        vocabularies: sizes of the first model's vocabulary and of the draft model's.

    Raises:
        ParameterError: the vocabularies differ, and a tokenizer is missing.
    """
    if tokenizer is not None and assistant_tokenizer is not None:
        return bool(tokenizer.get_vocab() != assistant_tokenizer.get_vocab())
    if vocabularies[0] != vocabularies[1]:
        missing = [
            name
            for name, one in (("tokenizer", tokenizer), ("assistant_tokenizer", assistant_tokenizer))
            if one is None
        ]
        raise genmode.ParameterError(
            f"assistant_model={type(assistant).__name__} has a vocabulary of {vocabularies[1]} tokens and the model one "
            f"of {vocabularies[0]}: drafting then goes through text; pass {' and '.join(missing)} as well, or an "
            "assistant_model with the model's tokenizer"
        )
    return False
