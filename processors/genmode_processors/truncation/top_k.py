"""Top-k: keep the k best tokens.

    keep i  if  score_i >= the k-th highest score

Source: Fan, Lewis and Dauphin, "Hierarchical neural story generation", ACL 2018, arXiv:1805.04833; as
transformers' TopKLogitsWarper. Ties: every token as good as the k-th is kept, so more than k may stay. With
fewer than k tokens left unmasked, all of them stay.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, keep_best

from .base import Truncation, adopted


class TopK(Truncation, genmode.StandIn):
    """Keeps a fixed number of tokens."""

    contract_version = 1
    name = "top_k"
    paper = "Fan, Lewis and Dauphin, Hierarchical neural story generation, ACL 2018, arXiv:1805.04833"
    replaces = ("TopKLogitsWarper",)

    class Params(genmode.Params):
        top_k: int = Field(50, ge=0, description="how many of the most probable tokens to keep; 0 keeps all")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> TopK | None:
        """The equal of a `TopKLogitsWarper`."""
        return adopted(cls, theirs, top_k=theirs.top_k)

    @property
    def count(self) -> int:
        """How many tokens stay, ties aside; 0 for all."""
        return max(self.params.top_k, self.min_tokens_to_keep) if self.params.top_k else 0

    @property
    def reach(self) -> int | None:
        """That many."""
        return self.count or None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if not self.count:
            return scores
        return keep_best(scores, min(self.count, scores.shape[-1]))

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.count:
            return candidates
        scores, k = candidates.scores, self.count
        if candidates.dense is not None and scores.shape[-1] > k:
            if candidates.checked and not bool((scores[:, k - 1] == scores[:, k]).any()):
                return candidates.front(k)
            return candidates.cut(scores >= scores[:, k - 1, None])
        sure = self._as_good(candidates, candidates.alive)
        if candidates.doubt is None:
            return candidates.cut(sure)
        # without those in doubt, the k-th best is further down
        kept = self._as_good(candidates, candidates.alive & ~candidates.doubt)
        return candidates.cut(kept, kept & ~sure)

    def _as_good(self, candidates: Candidates, counted: Tensor) -> Tensor:
        """Which candidates are as good as the k-th of those in `counted`; all if these are fewer."""
        places = counted.cumsum(-1)
        lowest = candidates.scores.masked_fill(~counted | (places > self.count), torch.inf).amin(-1, keepdim=True)
        return (candidates.scores >= lowest) | (places[:, -1:] < self.count)
