"""p-less sampling: keep tokens at least as probable as a right guess of the token to be drawn.

    p-less:       keep i  if  p_i >= L,    L = sum_j p_j^2
    p-less-norm:  keep i  if  p_i >= L',   L' = (V * L - 1) / (V - 1),   V = size of the vocabulary

Source: Tan, Wu and Howard, "p-less sampling: a robust hyperparameter-free approach for LLM decoding", ICLR
2026, arXiv:2509.23234. The norm form is the more generous one. Ties: equal probabilities share their fate.
The best token always stays, also where rounding lifts L above it; with one token in the vocabulary L' is 0.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates

from .base import Truncation, exempt, without


class _Collision(Truncation):
    """A cutoff computed from the sum of squares."""

    @property
    def on(self) -> bool:
        """Whether it drops anything."""
        return True

    def cutoff(self, collision: Tensor, vocab: int) -> Tensor:
        """Least probability of a kept token from the sum of squares, `[rows, 1]` both."""
        return collision

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if not self.on:
            return scores
        shares = scores.softmax(-1)
        cutoff = self.cutoff(shares.square().sum(-1, keepdim=True), scores.shape[-1])
        return without(scores, shares < cutoff.minimum(shares.amax(-1, keepdim=True)))

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.on:
            return candidates
        candidates = candidates.settled()
        shares = candidates.shares()
        best = shares.amax(-1, keepdim=True)
        collision = shares.square().sum(-1, keepdim=True)
        margin = shares - self.cutoff(collision, candidates.vocab).minimum(best)
        tolerance = 8 * candidates.error(shares) * (shares + collision)
        return candidates.cut(*exempt(*candidates.within(margin, tolerance), shares == best))


class PLess(_Collision):
    """Keeps tokens by the row's collision probability."""

    contract_version = 1
    name = "p_less"
    paper = "Tan, Wu and Howard, p-less sampling, ICLR 2026, arXiv:2509.23234"

    class Params(genmode.Params):
        p_less: bool = Field(True, description="keep tokens at least as probable as the sum of all squares")

    @property
    def on(self) -> bool:
        """Whether it drops anything."""
        return bool(self.params.p_less)


class PLessNorm(_Collision):
    """The same with the chance of a right guess by luck taken out."""

    contract_version = 1
    name = "p_less_norm"
    paper = "Tan, Wu and Howard, p-less sampling, ICLR 2026, arXiv:2509.23234"

    class Params(genmode.Params):
        p_less_norm: bool = Field(True, description="p-less with a lower cutoff, which keeps more tokens")

    @property
    def on(self) -> bool:
        """Whether it drops anything."""
        return bool(self.params.p_less_norm)

    def cutoff(self, collision: Tensor, vocab: int) -> Tensor:
        """Least probability of a kept token from the sum of squares, `[rows, 1]` both."""
        return (collision * vocab - 1) / max(vocab - 1, 1)
