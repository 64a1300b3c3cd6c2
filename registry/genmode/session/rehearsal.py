"""Tokens that are only guessed, scored and drawn as they will be when they are verified.

    with session.rehearse() as guess:
        for _ in range(count):
            scores = guess.scores(logits)
            tokens = guess.draw(scores) if sample else scores.argmax(-1)
            guess.take(tokens)
            logits = forerunner.feed(tokens)
    session.draft(guess.tokens)

Processors see the guessed history, so that penalties and bans act on a draft as they will on the text. On
leaving the block all of it is taken back, and the session's random numbers go on where they were.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import candidates

if TYPE_CHECKING:
    from .session import Session


class Rehearsal:
    """Made by `Session.rehearse`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._taken: list[Tensor] = []
        self._noise = session.noise

    def __enter__(self) -> Rehearsal:
        session = self._session
        self._noise, session.noise = session.noise, copy.copy(session.noise)
        return self

    def __exit__(self, *exception: object) -> None:
        session = self._session
        if self._taken and session.chain.stateful:
            session.chain.rollback(torch.full_like(self._taken[0], len(self._taken)))
        session.noise = self._noise

    def __len__(self) -> int:
        return len(self._taken)

    @property
    def tokens(self) -> Tensor | None:
        """The guess so far: `[rows, k]`, long; None if it is empty."""
        return torch.stack(self._taken, dim=1) if self._taken else None

    def scores(self, logits: Tensor) -> Tensor:
        """`logits` `[rows, vocab]`, float32, behind the guess so far, after all processors; may be written."""
        session = self._session
        if not len(session.chain):
            return logits
        return session.chain.process(logits, session.history.ahead(len(self._taken)))

    def draw(self, scores: Tensor) -> Tensor:
        """A token of each row from softmax(scores): `[rows]`, long.

        With `Session.pin_draws` the numbers are those that the verification will draw with at this position,
        so that two models which agree also draw the same token.
        """
        session = self._session
        session.noise.move(session, len(self._taken))
        return candidates.draw([], scores, session.history, session.noise)

    def take(self, tokens: Tensor) -> None:
        """The guess goes on with `tokens` `[rows]`, long."""
        session = self._session
        self._taken.append(tokens)
        if len(session.chain):
            session.history.write(torch.stack(self._taken, dim=1))
            session.chain.accept(tokens)
