"""Tokens that are only guessed, scored and drawn as they will be when they are verified."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..contract.processor import Stage
from ..contract.stand_in import StandIn
from ..sampling import candidates
from .links import Line, Link
from .noise import TorchNoise, drawn_from

if TYPE_CHECKING:
    from .state import DecodeState


class DraftScorer:
    """See `genmode.contract.session.DraftScorer`."""

    def __init__(self, state: DecodeState, shares: bool) -> None:
        self._state, self._shares = state, shares
        self._again: Line | None = None
        if not shares and state.rows == 1 and state.host_reads_freely and isinstance(state.noise, TorchNoise):
            # transformers' assistant gets the call's samplers and makes its own of the same flags behind them
            self._again = Line([one for one in state.chain.links if _samples(one)])
        self._taken: list[Tensor] = []
        self._noise = state.noise

    def __enter__(self) -> DraftScorer:
        state = self._state
        self._taken = []
        self._noise, state.noise = state.noise, copy.copy(state.noise)
        return self

    def __exit__(self, *exception: object) -> None:
        state = self._state
        if self._taken and state.chain.stateful:
            state.chain.rollback(torch.full_like(self._taken[0], len(self._taken)))
        state.noise = self._noise

    def __len__(self) -> int:
        return len(self._taken)

    @property
    def tokens(self) -> Tensor | None:
        return torch.stack(self._taken, dim=1) if self._taken else None

    def scores(self, logits: Tensor) -> Tensor:
        state = self._state
        if not len(state.chain):
            return logits
        state.ahead = len(self._taken)
        history = state.history.ahead(state.ahead)
        scores = state.chain.process(logits, history)
        state.ahead = 0
        return scores if self._again is None else self._again.process(scores, history)

    def draw(self, scores: Tensor) -> Tensor:
        state = self._state
        if self._shares:
            state.noise.move(state, len(self._taken))
            return candidates.draw([], scores, state.history, state.noise)
        if isinstance(state.noise, TorchNoise):
            state.draws_guesses = True
            return candidates.draw([], scores, state.history, state.noise)
        state.noise.keep_apart(state, len(self._taken))
        return drawn_from(state.noise, scores.softmax(-1), 1)[:, 0]

    def take(self, tokens: Tensor) -> None:
        state = self._state
        self._taken.append(tokens)
        if len(state.chain):
            state.history.write(torch.stack(self._taken, dim=1))
            state.chain.accept(tokens)


def _samples(link: Link) -> bool:
    """Whether transformers makes this processor for sampling alone."""
    return link.stage in (Stage.TEMPERATURE, Stage.TRUNCATION) and isinstance(link.processor, StandIn)
