"""Min-p and top-a: keep tokens whose probability is not too far below the best one's.

    min-p: keep i  if  p_i >= a * max p          top-a: keep i  if  p_i >= a * (max p)^2

Sources: Nguyen et al., "Turning up the heat: min-p sampling for creative and coherent LLM outputs", ICLR
2025, arXiv:2407.01082, as transformers' MinPLogitsWarper; top-a:
github.com/BlinkDL/RWKV-LM#the-top-a-sampling-method. Ties: equal probabilities share their fate. The best
token always stays.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import ROUNDING, Candidates, precise

from .base import Truncation, adopted, exempt, ranks, without


class MinP(Truncation, genmode.StandIn):
    """Keeps tokens with a share of the best token's probability."""

    contract_version = 1
    name = "min_p"
    paper = "Nguyen et al., Turning up the heat: min-p sampling, ICLR 2025, arXiv:2407.01082"
    replaces = ("MinPLogitsWarper",)

    class Params(genmode.Params):
        min_p: float = Field(
            0.1, ge=0, le=1, description="least probability of a kept token as a share of the best token's"
        )

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> MinP | None:
        """The equal of a `MinPLogitsWarper`."""
        return adopted(cls, theirs, min_p=theirs.min_p)

    @property
    def reach(self) -> int | None:
        """The data tell; with 0 nothing is dropped."""
        return 0 if self.params.min_p else None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        shares = scores.softmax(-1)
        dropped = shares < shares.amax(-1, keepdim=True) * self.params.min_p
        if self.min_tokens_to_keep > 1:
            best = shares.topk(min(self.min_tokens_to_keep, shares.shape[-1])).indices
            dropped.scatter_(-1, best, False)
        return without(scores, dropped)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.params.min_p:
            return candidates
        if self.min_tokens_to_keep > 1:
            candidates = candidates.settled()
        scores = precise(candidates.scores)
        margin = scores - scores.amax(-1, keepdim=True) - math.log(self.params.min_p)
        kept, doubt = candidates.within(margin, ROUNDING)
        if self.min_tokens_to_keep > 1 or self.params.min_p == 1:
            kept, doubt = exempt(kept, doubt, ranks(candidates) <= self.min_tokens_to_keep)
            kept, doubt = candidates.split(kept, doubt)
        return candidates.cut(kept, doubt)


class TopA(Truncation):
    """Keeps tokens with a share of the square of the best token's probability."""

    contract_version = 1
    name = "top_a"
    paper = "BlinkDL, The top-a sampling method, github.com/BlinkDL/RWKV-LM"

    class Params(genmode.Params):
        top_a: float = Field(
            0.2,
            ge=0,
            le=1,
            description="least probability of a kept token as a share of the best one's square; 0 keeps all",
        )

    @property
    def reach(self) -> int | None:
        """The data tell; with 0 nothing is dropped."""
        return 0 if self.params.top_a else None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        shares = scores.softmax(-1)
        return without(scores, shares < shares.amax(-1, keepdim=True).square() * self.params.top_a)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.params.top_a:
            return candidates
        shares = candidates.shares()
        logs = shares.log()
        margin = logs - 2 * logs.amax(-1, keepdim=True) - math.log(self.params.top_a)
        return candidates.cut(*candidates.within(margin, 2 * candidates.error(shares)))
