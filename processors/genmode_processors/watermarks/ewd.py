"""EWD (Lu, Liu, Yu, Li and King 2024, "An Entropy-based Text Watermarking Detection Method").

Text is marked by hashed green lists (`green.py`). The detector weighs each token by how free the model was: with
the spike entropy of Kirchenbauer et al. 2023 (definition 4.1),

    S = sum over v of p(v) / (1 + z p(v)),   z = (1 - gamma) (e^bias - 1) / (1 + (e^bias - 1) gamma)
    weight = S - 1 / (1 + z)

its excess over the least value that S can have (the paper's linear weight), rounded to 1/63 of the largest, so
that the distribution of the weighted green count in text without the mark is computed exactly.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

import genmode
from genmode.watermark import WeightedBernoulli

from .green import ContextParams, Greens

STEPS = 63


class Ewd(Greens):
    """Green lists, read with entropy weights. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "ewd"
    paper = "Lu et al. 2024, https://arxiv.org/abs/2403.13485"
    traits = frozenset({genmode.Trait.READS_MODEL})

    Params = ContextParams

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        gain, rate = math.expm1(self.params.bias), self.limit / 256
        self.z = (1 - rate) * gain / (1 + gain * rate)
        self.unit = (1 - 1 / (1 + self.z)) / STEPS

    def statistic(self, logits: Tensor) -> Tensor:
        """The spike entropy of each prediction: `[n]`, float32."""
        shares = logits.softmax(-1)
        return shares.div_(shares.mul(self.z).add_(1)).sum(-1)

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        values, draws, _ = super().evidence(tokens, None)
        if statistic is None:
            return genmode.Evidence(values, draws)
        steps = ((statistic.double() - 1 / (1 + self.z)) / self.unit).round().clamp(0, STEPS)
        return genmode.Evidence(values.masked_fill(~(steps > 0), float("nan")), draws, steps * self.unit)

    def null(self) -> genmode.Null:
        return WeightedBernoulli(self.limit / 256, self.unit)
