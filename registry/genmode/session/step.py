"""One forward and what follows it, as a strategy sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..contract.session import Accepted, Look
from .commit import advance, advance_unevenly
from .judging import check_path, check_tokens
from .scores import StepScores
from .trees import accepted

if TYPE_CHECKING:
    from .state import DecodeState


class DecodingStep:
    """See `genmode.contract.session.Step`."""

    __slots__ = ("_look", "_scores", "_state", "committed", "index")

    def __init__(self, state: DecodeState, scores: StepScores) -> None:
        self._state, self._scores = state, scores
        self._look: Look | None = None
        self.index = state.step_index
        self.committed = False

    @property
    def draft(self) -> Tensor | None:
        return self._scores.draft

    @property
    def logits(self) -> Tensor:
        return self._scores.logits

    @property
    def scores(self) -> Tensor:
        return self._scores.scores

    @scores.setter
    def scores(self, value: Tensor) -> None:
        self._scores.scores = value

    @property
    def each_scores(self) -> Tensor:
        return self._scores.each_scores

    @property
    def log_probabilities(self) -> Tensor:
        return self._scores.log_probabilities

    @property
    def log_scores(self) -> Tensor:
        return self._scores.log_scores

    @property
    def outputs(self) -> Any:
        return self._state.engine.outputs

    def process(self, values: Tensor) -> Tensor:
        return self._scores.process(values)

    def best(self, *, each: bool = False) -> Tensor:
        return self._scores.best_each() if each else self._scores.best()

    def sample(self, *, each: bool = False) -> Tensor:
        return self._scores.sample_each() if each else self._scores.sample()

    def accepted(self, chosen: Tensor) -> Accepted:
        return accepted(self.draft, self._scores.form, chosen)

    def look(self, tokens: Tensor, *, one_by_one: bool = False) -> Look:
        state = self._state
        if self.draft is not None or state.abilities.backtracks:
            raise ValueError(
                "look comes where no draft is being verified, and no processor takes tokens back; a strategy that looks "
                'states needs = {"level"}, or {"population"}'
            )
        self._scores.record()  # of this step's forward, before the candidates' takes its place
        logits, states = state.engine.look(tokens, one_by_one)
        self._look = Look(logits.to(device=state.device, dtype=torch.float32), states)
        return self._look

    def commit(
        self, tokens: Tensor, *, rows: Tensor | None = None, counts: Tensor | None = None,
        taken: Tensor | None = None, path: Tensor | None = None,
    ) -> None:  # fmt: skip
        if self.committed:
            raise RuntimeError("this step is already committed; take the next one from session.steps()")
        self.committed = True
        state = self._state
        unevenly = (
            self.draft is not None or counts is not None or state.abilities.backtracks or state.history.level is None
        )  # fmt: skip
        check_tokens(state, self._scores, tokens, unevenly)
        if taken is not None:
            if self._look is None or rows is not None:
                raise ValueError("commit(taken=...) follows look() and does not go with rows=")
            if state.history.level is None:
                advance_unevenly(state, self._scores, tokens[:, None], torch.ones_like(tokens))
            else:
                advance(state, self._scores, tokens, None)
            logits = self._look.logits
            state.engine.take(taken)
            state.held = 0
            state.ready_logits = logits.gather(1, taken[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
        elif not unevenly:
            advance(state, self._scores, tokens, rows)
        else:
            tokens = tokens if tokens.dim() == 2 else tokens[:, None]
            counts = torch.ones_like(tokens[:, 0]) if counts is None else counts
            if rows is not None and state.abilities.backtracks and not state.abilities.population:
                raise ValueError(
                    "a processor of this call may take tokens back, and rows of a strategy that does not say so cannot be "
                    'reordered; a strategy that reorders states needs = {"reorder"}'
                )
            check_path(self._scores.form, tokens, rows, path)
            advance_unevenly(state, self._scores, tokens, counts, rows, path)
