"""Typical acceptance: a drafted token is taken where the model does not find it surprising. Changes the distribution.

Cai et al. 2024, "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads"
(https://arxiv.org/abs/2401.10774), section 2.3.1.

    x_i is taken if p(x_i) > min(epsilon, delta exp(-H(p))), H(p) = -sum_v p(v) log p(v) in nats
    the token behind: from p

Where the model is sure, the threshold is epsilon; where it is not, it falls with the entropy. Nothing of q matters, so any
drafter fits. Text is that of the drafter, as far as the model puts up with it: act only where named.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .residual import at, row_at


class Typical(genmode.Verification):
    """Typical acceptance of Medusa; changes the distribution. Shapes: p `[rows, k + 1, vocab]`, draft `[rows, k]`."""

    contract_version = 1
    paper = "Cai et al. 2024, Medusa, https://arxiv.org/abs/2401.10774"

    class Params(genmode.Params):
        """Parameters of typical acceptance."""

        typical_epsilon: float = Field(0.09, gt=0, le=1, description="probability that is always enough")
        typical_delta: float = Field(0.3, gt=0, le=1, description="share of exp(-entropy) that is enough")

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        entropy = torch.special.entr(p[:, :-1]).sum(-1)
        enough: Tensor = (self.params.typical_delta * torch.exp(-entropy)).clamp(max=self.params.typical_epsilon)
        return (at(p, draft) > enough).to(p.dtype)

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        return row_at(p, taken)
