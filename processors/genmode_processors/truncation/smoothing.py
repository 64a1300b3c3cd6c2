"""Quadratic smoothing: bend the scores around the best one.

    d = score - max,   score <- max - k f d^2 + s f d^3,   k = (3 - c) / 2,  s = (c - 1) / 2

with factor f and curve c. Source: kalomaze, "Quadratic sampling" and its cubic curve, github.com/oobabooga/
textgen/pull/5403 and /5551. Order and ties are kept for c up to 3; above, tokens close to the best
one may overtake it. Masked tokens stay masked. f = 0 would make all scores equal and means off.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import genmode


class Smoothing(genmode.LogitsProcessor):
    """Flattens near the best score and steepens far from it."""

    contract_version = 1
    name = "smoothing"
    paper = "kalomaze, Quadratic sampling, github.com/oobabooga/textgen/pull/5403"
    stage = genmode.Stage.TEMPERATURE
    traits = frozenset({genmode.Trait.PURE})
    after = ("temperature",)

    class Params(genmode.Params):
        smoothing_factor: float = Field(0.0, ge=0, description="how strongly the scores are bent; 0 leaves them alone")
        smoothing_curve: float = Field(1.0, ge=1, description="how much more steeply far scores fall; 1 is quadratic")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        factor, curve = self.params.smoothing_factor, self.params.smoothing_curve
        if not factor:
            return scores
        best = scores.amax(-1, keepdim=True)
        distance = scores - best
        # factored so that the square may become infinite without a NaN
        bent = (distance * ((curve - 1) / 2) - (3 - curve) / 2).mul_(factor).mul_(distance.square())
        return torch.where(scores > -torch.inf, best + bent, scores)
