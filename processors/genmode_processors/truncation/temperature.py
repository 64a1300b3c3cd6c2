"""Temperature.

    score <- score / T

Source: Ackley, Hinton and Sejnowski, "A learning algorithm for Boltzmann machines", 1985; as transformers'
TemperatureLogitsWarper, bit for bit, while the quotients are numbers. Below `COLDEST` they need not be, so the best
score is subtracted before: in the limit it is 0 and every lower one -inf, which is greedy search. Masked tokens stay
masked under every T. T must be positive: greedy decoding is `do_sample=False`, not T = 0.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates

COLDEST = 1e-25
_LIMITS = torch.finfo(torch.float32)


class Temperature(genmode.LogitsProcessor, genmode.StandIn):
    """Divides the scores by a constant; writes in place."""

    contract_version = 1
    name = "temperature"
    paper = "Ackley, Hinton and Sejnowski, A learning algorithm for Boltzmann machines, 1985"
    stage = genmode.Stage.TEMPERATURE
    traits = frozenset({genmode.Trait.PURE})
    replaces = ("TemperatureLogitsWarper",)

    class Params(genmode.Params):
        temperature: float = Field(1.0, gt=0, description="below 1 sharpens the distribution, above 1 flattens it")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> Temperature:
        """Every `TemperatureLogitsWarper` has an equal."""
        return cls(temperature=theirs.temperature)

    @property
    def reach(self) -> int | None:
        """Drops nothing, so it cannot begin the fused chain."""
        return None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, the scores given, divided in place."""
        return self._divided(scores, scores.amax(-1, keepdim=True) if self.params.temperature < COLDEST else None)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        best = candidates.scores[:, :1] if self.params.temperature < COLDEST else None
        return dataclasses.replace(candidates, scores=self._divided(candidates.scores.clone(), best))

    def redo(self, scores: Tensor, rows: Tensor, history: genmode.History) -> Tensor:
        """The same for some rows."""
        return self.process(scores, history)

    def _divided(self, scores: Tensor, best: Tensor | None) -> Tensor:
        if best is not None:
            scores.sub_(best.clamp(min=_LIMITS.min))
        return scores.div_(min(max(self.params.temperature, _LIMITS.tiny), _LIMITS.max))
