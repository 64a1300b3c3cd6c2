"""Speculative cascades: the drafter speaks where that costs little, the model where it does not. Changes the distribution.

Narasimhan et al. 2024, "Faster Cascades via Speculative Decoding" (https://arxiv.org/abs/2405.19261).

    pi = (1 - r) q + r p at each position, verified as by rejection with pi in the place of p
    rule "opt":  r = 1 if max q < max p - alpha TV(p, q), else 0      TV(p, q) = sum_v |p(v) - q(v)| / 2
    rule "chow": r = 1 if max q < 1 - alpha, else 0

q is cut to the tokens that p has, so that what processors mask is never taken. Each drafted token is distributed as pi. The token behind a whole draft has no q, and is the model's. With the greater
alpha, more is left to the drafter: from 1 on all, and at -2 nothing, which is rejection.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .residual import at, left_over, row_at


class Cascade(genmode.Verification):
    """Speculative cascades; changes the distribution. Shapes: p `[rows, k + 1, vocab]`, q `[rows, k, vocab]`."""

    contract_version = 1
    paper = "Narasimhan et al. 2024, Faster Cascades via Speculative Decoding, https://arxiv.org/abs/2405.19261"

    class Params(genmode.Params):
        """Parameters of speculative cascades."""

        cascade_rule: Literal["opt", "chow"] = Field("opt", description="when the model takes over from the drafter")
        cascade_alpha: float = Field(
            0.3, ge=-2, le=2, description="what asking the model costs; more leaves it out more"
        )

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        return at(self.mixed(p[:, :-1], q), draft) / at(q, draft)

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        inside, here, guessed = taken < counts, row_at(p, taken), row_at(q, taken)
        return left_over(torch.where(inside[:, None], self.mixed(here, guessed), here), guessed, inside)

    def mixed(self, p: Tensor, q: Tensor) -> Tensor:
        """pi: `[..., vocab]`, from two of that shape."""
        alpha, surest = self.params.cascade_alpha, q.amax(-1)
        if self.params.cascade_rule == "chow":
            asks = surest < 1 - alpha
        else:
            asks = surest < p.amax(-1) - alpha * (p - q).abs().sum(-1) / 2
        allowed = q * (p > 0)  # a drafter may know nothing of what the processors mask
        mass = allowed.sum(-1, keepdim=True)
        return torch.where(asks[..., None] | (mass == 0), p, torch.where(mass < 1, allowed / mass, q))
