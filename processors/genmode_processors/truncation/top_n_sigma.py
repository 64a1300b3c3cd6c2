"""Top-n-sigma: keep scores within n standard deviations of the best.

    keep i  if  score_i >= max - n * sigma

Source: Tang, Liu, Xu and Huang, "Top-n-sigma: not all logits are you need", ACL 2025, arXiv:2411.07641.
Mean and standard deviation are over the tokens that are not masked, and the deviation is that of the
population, so that one token has sigma 0. The kept set does not depend on the temperature. Ties: equal
scores share their fate.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import ROUNDING, Candidates, precise

from .base import Truncation, exempt, without


def _deviation(scores: Tensor) -> Tensor:
    """Population standard deviation of the unmasked scores, `[rows, 1]`; 0 if there are none."""
    seen = scores > -torch.inf
    count = seen.sum(-1, keepdim=True).clamp_(min=1)
    mean = scores.masked_fill(~seen, 0).sum(-1, keepdim=True) / count
    return ((scores - mean).square_().masked_fill_(~seen, 0).sum(-1, keepdim=True) / count).sqrt_()


class TopNSigma(Truncation):
    """Keeps tokens by the spread of the row's scores."""

    contract_version = 1
    name = "top_n_sigma"
    paper = "Tang, Liu, Xu and Huang, Top-n-sigma: not all logits are you need, ACL 2025, arXiv:2411.07641"

    class Params(genmode.Params):
        top_n_sigma: float = Field(
            1.0, gt=0, description="how many standard deviations below the best score a kept score may lie"
        )

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        lowest = scores.amax(-1, keepdim=True) - _deviation(precise(scores)) * self.params.top_n_sigma
        return without(scores, scores < lowest)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        candidates = candidates.settled()
        scores = precise(candidates.scores)
        reach = _deviation(scores) * self.params.top_n_sigma
        best = scores.amax(-1, keepdim=True)
        margin = scores - best + reach
        size = best.abs() + scores.masked_fill(~candidates.alive, 0).abs().amax(-1, keepdim=True) + 1
        return candidates.cut(*exempt(*candidates.within(margin, ROUNDING * (size + reach)), scores == best))
