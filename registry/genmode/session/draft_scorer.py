"""Tokens that are only guessed, scored and drawn as they will be when they are verified."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling import candidates

if TYPE_CHECKING:
    from .state import DecodeState


class DraftScorer:
    """See `genmode.contract.session.DraftScorer`."""

    def __init__(self, state: DecodeState) -> None:
        self._state = state
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
        found = state.chain.process(logits, state.history.ahead(state.ahead))
        state.ahead = 0
        return found

    def draw(self, scores: Tensor) -> Tensor:
        state = self._state
        state.noise.move(state, len(self._taken))
        return candidates.draw([], scores, state.history, state.noise)

    def take(self, tokens: Tensor) -> None:
        state = self._state
        self._taken.append(tokens)
        if len(state.chain):
            state.history.write(torch.stack(self._taken, dim=1))
            state.chain.accept(tokens)
