"""A strategy that reads what is private; the check reads a whole module, so it stands alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import genmode


class Private(genmode.Strategy):
    """Reads what is private."""

    contract_version = 1

    def decode(self, session: genmode.Session, params: Any) -> None:
        for step in session.steps():
            step.commit(step._raw.argmax(-1))


class PrivateProcessor(genmode.LogitsProcessor):
    """Reads what is private."""

    contract_version = 1

    def process(self, scores: Any, history: genmode.History) -> Any:
        return scores + history._lengths


class PrivateStop(genmode.StoppingCriterion):
    """Reads what is private."""

    contract_version = 1

    def check(self, history: genmode.History) -> Any:
        return history._lengths > 5


def by_engine(session: Any, step: Any) -> Tensor:
    """The best token under one engine, the second best under others."""
    best = step.scores.topk(2).indices
    return best[:, 0] if session._state.engine.name == "static" else best[:, 1]
