"""Top-p, nucleus sampling: keep the smallest set of best tokens whose probabilities reach p.

    keep i  if  the probabilities of the tokens above i sum to less than p

Source: Holtzman, Buys, Du, Forbes and Choi, "The curious case of neural text degeneration", ICLR 2020,
arXiv:1904.09751; as transformers' TopPLogitsWarper, which adds the probabilities up from the least probable
token and drops while the sum is at most 1 - p. Ties: of equal scores at the edge as many are kept as are
needed, which ones is as chance as in transformers, and the same ones. A masked row stays as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, numpy_reads, without_tail

from .base import Truncation, adopted, exempt, ranks, without

_TINY = 1e-3


class TopP(Truncation, genmode.StandIn):
    """Keeps the nucleus of each row."""

    contract_version = 1
    name = "top_p"
    paper = "Holtzman et al., The curious case of neural text degeneration, ICLR 2020, arXiv:1904.09751"
    replaces = ("TopPLogitsWarper",)

    class Params(genmode.Params):
        top_p: float = Field(1.0, ge=0, le=1, description="probability that the kept tokens must reach; 1 keeps all")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> TopP | None:
        """The equal of a `TopPLogitsWarper`."""
        return adopted(cls, theirs, top_p=theirs.top_p)

    @property
    def reach(self) -> int | None:
        """The data tell."""
        return 0

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if not numpy_reads(scores):
            return self._by_sorting(scores)
        result, tied = without_tail(scores, 1 - self.params.top_p, self.min_tokens_to_keep)
        if tied:
            result[tied] = self._by_sorting(scores[tied])
        return result

    def _by_sorting(self, scores: Tensor) -> Tensor:
        # which of several equal scores torch.sort puts first depends on all of the row
        ordered, ids = torch.sort(scores)
        dropped = ordered.softmax(-1).cumsum(-1) <= 1 - self.params.top_p
        if self.min_tokens_to_keep > 1 or self.params.top_p < _TINY:  # else the best one's sum is above that anyway
            dropped[:, -self.min_tokens_to_keep :] = False
        return without(scores, dropped.scatter(1, ids, dropped))

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if self.min_tokens_to_keep > 1:
            candidates = candidates.settled()
        shares = candidates.shares()
        margin = self.params.top_p - shares.cumsum(-1).sub_(shares)  # [rows, k] how much is missing above
        kept, doubt = candidates.within(margin, candidates.error(shares))
        if self.min_tokens_to_keep > 1 or not self.params.top_p:
            kept, doubt = exempt(kept, doubt, ranks(candidates) <= self.min_tokens_to_keep)
        return candidates.cut(*candidates.split(kept, doubt))
