"""Temperature.

    score <- score / T

Source: Ackley, Hinton and Sejnowski, "A learning algorithm for Boltzmann machines", 1985; as transformers'
TemperatureLogitsWarper, bit for bit. Masked tokens stay masked. T must be positive: greedy decoding is
`do_sample=False`, not T = 0.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates


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
        return scores.div_(self.params.temperature)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        return dataclasses.replace(candidates, scores=candidates.scores / self.params.temperature)

    def redo(self, scores: Tensor, rows: Tensor, history: genmode.History) -> Tensor:
        """The same for some rows."""
        return self.process(scores, history)
