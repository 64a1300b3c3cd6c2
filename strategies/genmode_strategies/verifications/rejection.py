"""Rejection, token by token: speculative sampling.

Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding" (https://arxiv.org/abs/2211.17192),
algorithm 1; Chen et al. 2023, "Accelerating Large Language Model Decoding with Speculative Sampling"
(https://arxiv.org/abs/2302.01318).

    x_i is taken with probability min(1, p(x_i) / q(x_i)), as long as all before it were
    the token behind: from norm(max(p - q, 0)) where x_i was refused, from p behind a whole draft

Each token is then distributed as p: q(x) min(1, p(x) / q(x)) + (1 - sum_y min(p(y), q(y))) max(p(x) - q(x), 0) / sum_y
max(p(y) - q(y), 0) = p(x). Most tokens that any rule can take which looks at one token at a time: 1 - TV(p, q).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import genmode

from .residual import at, left_over, row_at


class Rejection(genmode.Verification):
    """Speculative sampling. Shapes: p `[rows, k + 1, vocab]`, q `[rows, k, vocab]`, draft `[rows, k]`."""

    contract_version = 1
    paper = "Leviathan et al. 2023, Speculative Decoding, https://arxiv.org/abs/2211.17192"
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.KEEPS_DISTRIBUTION})

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        return at(p, draft) / at(q, draft)

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        return left_over(row_at(p, taken), row_at(q, taken), taken < counts)
