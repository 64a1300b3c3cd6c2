"""Top-h: keep best tokens up to a share of the row's entropy.

    H = entropy of the 100 best tokens alone,   keep the first n of them with  -sum_{i<=n} p_i log p_i <= h * H

Source: Potraghloo, Azizi, Kundu and Pedram, "Top-H decoding", NeurIPS 2025, arXiv:2509.02510; as
transformers' TopHLogitsWarper, which looks at 100 tokens. The best token always stays. Ties: of equal
scores at the edge, those stay that torch.topk puts first, which is chance.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import ROUNDING, Candidates, precise

from .base import Truncation, adopted, exempt, ranks


class TopH(Truncation, genmode.StandIn):
    """Keeps tokens by cumulative entropy."""

    contract_version = 1
    name = "top_h"
    paper = "Potraghloo, Azizi, Kundu and Pedram, Top-H decoding, NeurIPS 2025, arXiv:2509.02510"
    replaces = ("TopHLogitsWarper",)

    class Params(genmode.Params):
        top_h: float = Field(0.4, gt=0, le=1, description="share of the row's entropy that the kept tokens may have")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.looks_at = 100

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> TopH | None:
        """The equal of a `TopHLogitsWarper`."""
        ours = adopted(cls, theirs, top_h=theirs.top_h)
        if ours is not None:
            ours.looks_at = theirs.top_n
        return ours

    @property
    def reach(self) -> int | None:
        """The 100 best."""
        return self.looks_at

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        best, ids = scores.topk(min(self.looks_at, scores.shape[-1]))
        logs = best - best.logsumexp(-1, keepdim=True)
        shares = logs.softmax(-1)
        entropy = -logs.clamp(min=torch.finfo(logs.dtype).min).mul_(shares).sum(-1, keepdim=True)
        keep = (-shares * shares.log()).cumsum(-1) <= entropy * self.params.top_h
        keep[:, 0] = True
        return torch.full_like(scores, -torch.inf).scatter_(-1, ids, best.masked_fill(~keep, -torch.inf))

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        candidates = candidates.settled()
        places = ranks(candidates)
        shares = precise(candidates.scores).masked_fill(places > self.looks_at, -torch.inf).softmax(-1)
        terms = -torch.xlogy(shares, shares)  # 0 where a share is 0
        entropy = terms.sum(-1, keepdim=True)
        margin = self.params.top_h * entropy - terms.cumsum(-1)
        margin = margin.masked_fill(places > self.looks_at, -torch.inf)
        kept, doubt = exempt(*candidates.within(margin, 4 * ROUNDING * (1 + entropy)), places == 1)
        return candidates.cut(*candidates.split(kept, doubt))
