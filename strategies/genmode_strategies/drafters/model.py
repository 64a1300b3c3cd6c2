"""Drafts of a second model, token by token.

The draft model sees the same text, and its scores pass through the same processors, so that penalties and
bans do not make it guess what the call forbids. Greedy search drafts the argmax; sampling draws with the
numbers that the verification will draw with, see `genmode_strategies.drafters.verification`.

A row is sure as long as its drafted tokens have at least probability `threshold` and none ends the text; the
draft ends when no row is sure any more (transformers' confidence criterion, which it applies to one row). On
a device that is known one token late.

How the draft model reads the text is the reader's business: `SameTokens` for a model with the same tokens,
`genmode_strategies.drafters.shared_words` for another tokenizer.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

import genmode

from .draft_lengths import Constant


class Reader(Protocol):
    """Lets a draft model follow the rows."""

    def begin(self) -> Tensor:
        """Logits behind what the rows have become: `[rows, vocab]`, float32, over the rows' vocabulary."""
        ...

    def feed(self, tokens: Tensor) -> Tensor:
        """The same behind one more guessed token of each row, `[rows]`, long."""
        ...

    def learn(self, drafted: bool) -> None:
        """The rows have continued, behind a draft that was fed to this reader or without one."""
        ...


class SameTokens:
    """For a draft model with the tokens of the first one.

    Vocabularies may be of different size where one is padded: ids beyond either cannot be drafted.
    """

    def __init__(self, session: genmode.Session, model: Any) -> None:
        self.session = session
        self.draft_model = session.draft_model(model)
        self.behind = 0

    def begin(self) -> Tensor:
        return self._fitted(self.draft_model.catch_up(self.session.history, self.behind))

    def feed(self, tokens: Tensor) -> Tensor:
        return self._fitted(self.draft_model.feed(tokens))

    def learn(self, drafted: bool) -> None:
        self.behind = 2 if drafted else self.behind + 1

    def _fitted(self, logits: Tensor) -> Tensor:
        missing = self.session.vocab_size - logits.shape[1]
        if missing == 0:
            return logits
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)  # a negative number cuts off


class ModelDrafter:
    """See `genmode_strategies.drafters.verification.Drafter`.

    Args:
        session: the session, before its first step.
        reader: the draft model.
        lengths: how many tokens to draft.
        threshold: a row that drafts a token less probable than this is no longer sure; 0 for none.
        sample: draw instead of taking the argmax.
    """

    def __init__(
        self, session: genmode.Session, reader: Reader, lengths: Constant, threshold: float, sample: bool
    ) -> None:
        self.session, self.reader, self.lengths = session, reader, lengths
        self.threshold, self.sample = threshold, sample
        self.ends = torch.tensor(session.eos_token_ids, device=session.device)
        self.readback = session.async_readback(1)
        self.scorer = session.draft_scorer(share_randomness=sample)

    def draft(self) -> Tensor | None:
        session, count = self.session, min(self.lengths.now, self.session.draft_room)
        if count < 1:
            return None
        logits, sure = self.reader.begin(), session.unfinished
        with self.scorer as guess:
            while True:
                scores = guess.scores(logits)
                tokens = guess.draw(scores) if self.sample else scores.argmax(-1)
                guess.take(tokens)
                sure = self._still_sure(sure, scores, tokens)
                if len(guess) == count or self._nobody(sure, len(guess)):
                    return guess.tokens
                logits = self.reader.feed(tokens)

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        self.reader.learn(step.draft is not None)
        if step.draft is not None:
            self.lengths.learn(step.draft.shape[1], agreed, running)

    def _still_sure(self, sure: Tensor, scores: Tensor, tokens: Tensor) -> Tensor:
        if self.threshold > 0:
            probable = scores.softmax(-1).gather(1, tokens[:, None])[:, 0] >= self.threshold
            sure = sure & probable
        return sure & ~torch.isin(tokens, self.ends) if len(self.ends) else sure

    def _nobody(self, sure: Tensor, drafted: int) -> bool:
        """Whether no row is sure, as far as the host knows."""
        if not (self.threshold > 0 or len(self.ends)):
            return False
        seen = self.readback.exchange(sure.any().long()[None])
        if self.readback.deferred and drafted == 1:  # what comes back is of the last draft
            return False
        return seen is not None and not int(seen[0])
