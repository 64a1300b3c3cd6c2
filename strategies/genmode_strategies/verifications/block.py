"""Block verification: the draft is judged as a whole, and at least as much of it is taken as by any other lossless rule.

Sun et al. 2024, "Block Verification Accelerates Speculative Decoding" (https://arxiv.org/abs/2403.10444), algorithm 2.

    P_0 = 1, P_i = min(1, P_i-1 p(x_i) / q(x_i))
    h_i = m_i / (m_i + 1 - P_i) with m_i = sum_v max(P_i p(v) - q(v), 0) at the token behind x_i, for i < k; h_k = P_k
    taken: the LARGEST i with u_i <= h_i, of k uniform numbers u; 0 if there is none
    the token behind: from norm(max(P_i p - q, 0)), from p behind a whole draft

A token that is improbable does not end the draft: those behind it may make up for it. With S_i the probability that i or
more are taken, S_i = 1 - prod_j>=i (1 - h_j), a token is taken with S_i / S_i-1 if those before it are: the same law,
token by token. Under `seed=` processors that draw numbers, such as `xtc`, draw for a position what they drew for it in the
step before; the law of the texts is then that of sampling but for what such a processor and a refused draft share.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

import genmode

from .residual import at, left_over, row_at


class Block(genmode.Verification):
    """Block verification. Shapes: p `[rows, k + 1, vocab]`, q `[rows, k, vocab]`, draft `[rows, k]`."""

    contract_version = 1
    paper = "Sun et al. 2024, Block Verification, https://arxiv.org/abs/2403.10444"
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.KEEPS_DISTRIBUTION})

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        whole = weights(p, q, draft)  # [rows, k + 1]: P_0 .. P_k
        more = (whole[:, 1:-1, None] * p[:, 1:-1] - q[:, 1:]).clamp(min=0).sum(-1)  # m_1 .. m_k-1
        last = whole[:, 1:-1]
        h = torch.where(last < 1, more / (more + 1 - last), 1.0)
        h = torch.cat([h, whole[:, -1:]], dim=1)
        ends = torch.arange(1, draft.shape[1] + 1, device=draft.device)
        h = torch.where(ends == counts[:, None], whole[:, 1:], h.masked_fill(ends > counts[:, None], 0.0))
        at_least = 1 - (1 - h).flip(1).cumprod(1).flip(1)  # S_1 .. S_k
        before = torch.cat([torch.ones_like(at_least[:, :1]), at_least[:, :-1]], dim=1)
        return torch.where(before > 0, at_least / before, 0.0)

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        weight = weights(p, q, draft).gather(1, taken[:, None])
        here, inside = row_at(p, taken), (taken < counts) & (weight[:, 0] > 0)  # 0: nowhere that a row gets to
        return left_over(torch.where(inside[:, None], weight * here, here), row_at(q, taken), inside)


def weights(p: Tensor, q: Tensor, draft: Tensor) -> Tensor:
    """P_0 .. P_k of each row: `[rows, k + 1]`."""
    ratios = at(p, draft) / at(q, draft)
    found = [torch.ones_like(ratios[:, 0])]
    for ratio in ratios.unbind(1):
        found.append((found[-1] * ratio).clamp(max=1))
    return torch.stack(found, dim=1)
