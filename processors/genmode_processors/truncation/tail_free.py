"""Tail-free sampling: cut where the curve of the sorted probabilities has become flat.

    p_1 >= p_2 >= ...,   c_j = |p_j - 2 p_{j+1} + p_{j+2}|,   w = c / sum c
    keep p_1 .. p_n  with n = the first j at which w_1 + ... + w_j > z

Source: Bricken, "Tail free sampling", 2019, trentonbricken.com/Tail-Free-Sampling. Masked tokens are
probabilities of 0. Ties: tokens as probable as the n-th stay. With fewer than three tokens in the
vocabulary, or where all probabilities are equal, there is no curve and nothing is dropped.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, ascending

from .base import Truncation, without


def _curve(shares: Tensor) -> tuple[Tensor, Tensor]:
    """Cumulative share of the curvature behind each token but the last two, and its sum.

    Args:
        shares: `[rows, k]`, descending, k at least 3.

    Returns:
        `[rows, k - 2]` and `[rows, 1]`; shares of 0 where there is no curvature.
    """
    bends = shares.diff(dim=-1).diff(dim=-1).abs_()
    whole = bends.sum(-1, keepdim=True)
    return bends.cumsum(-1) / whole.masked_fill(whole == 0, 1), whole


class TailFree(Truncation):
    """Drops the flat tail of each row."""

    contract_version = 1
    name = "tfs"
    paper = "Bricken, Tail free sampling, 2019, trentonbricken.com/Tail-Free-Sampling"

    class Params(genmode.Params):
        tfs: float = Field(0.95, ge=0, le=1, description="share of the curvature to keep; 1 keeps all tokens")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if self.params.tfs == 1 or scores.shape[-1] < 3:
            return scores
        ordered = ascending(scores).flip(-1)  # [rows, vocab] descending
        reached, _ = _curve(ordered.softmax(-1))
        count = (reached <= self.params.tfs).sum(-1, keepdim=True)  # tokens behind the first that stay
        count = count.masked_fill(~(reached[:, -1:] > 0), scores.shape[-1] - 1)
        return without(scores, scores < ordered.gather(-1, count))

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if self.params.tfs == 1 or candidates.vocab < 3:
            return candidates
        candidates = candidates.settled()
        shares = candidates.shares()
        error = candidates.error(shares)
        width = candidates.scores.shape[-1]
        zeros = min(2, candidates.vocab - width)
        shares = torch.nn.functional.pad(shares.sort(-1, descending=True).values, (0, zeros))
        if shares.shape[-1] < 3:
            return candidates
        reached, whole = _curve(shares)
        margin = self.params.tfs - reached
        tolerance = 16 * error / whole.clamp(min=1e-30)
        flat = whole < 1e-6
        # of the sorted tokens, token 1 stays and token j + 1 as long as `margin` j allows
        least = (margin >= tolerance).sum(-1, keepdim=True)
        most = (margin >= -tolerance).sum(-1, keepdim=True)
        ordered = candidates.scores.sort(-1, descending=True).values
        last = width - 1
        keep = candidates.scores >= ordered.gather(-1, least.masked_fill(flat, last).clamp(max=last))
        if not candidates.checked:
            return candidates.cut(keep | flat)
        kept = candidates.scores >= ordered.gather(-1, most.masked_fill(flat, last).clamp(max=last))
        return candidates.cut(kept, kept & ~keep).unless(flat[:, 0])
