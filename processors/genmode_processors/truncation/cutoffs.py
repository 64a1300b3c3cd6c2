"""Epsilon and eta cutoffs: keep tokens above a probability, fixed or lowered where the row is undecided.

    epsilon: keep i  if  p_i >= e              eta: keep i  if  p_i >= min(e, sqrt(e) * exp(-H)),  H in nats

Source: Hewitt, Manning and Liang, "Truncation sampling as language model desmoothing", Findings of EMNLP
2022, arXiv:2210.15191; as transformers' EpsilonLogitsWarper and EtaLogitsWarper. Ties: equal scores share
their fate; tokens as good as the best one always stay. A row whose every token is masked stays as it is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, kth_highest

from .base import Truncation, adopted, entropy_of, exempt, kth_of, without


class _Cutoff(Truncation):
    def _drop(self, scores: Tensor, shares: Tensor, cutoff: Tensor | float) -> Tensor:
        dropped = shares < cutoff
        dropped &= scores < kth_highest(scores, min(self.min_tokens_to_keep, scores.shape[-1]))
        return without(scores, dropped)

    def _cut(self, candidates: Candidates, margin: Tensor, tolerance: Tensor | float) -> Candidates:
        free = candidates.scores >= kth_of(candidates.scores, self.min_tokens_to_keep)
        return candidates.cut(*exempt(*candidates.within(margin, tolerance), free))


class EpsilonCutoff(_Cutoff, genmode.StandIn):
    """Keeps tokens of at least a fixed probability."""

    contract_version = 1
    name = "epsilon_cutoff"
    paper = "Hewitt, Manning and Liang, Truncation sampling as language model desmoothing, 2022, arXiv:2210.15191"
    replaces = ("EpsilonLogitsWarper",)

    class Params(genmode.Params):
        epsilon_cutoff: float = Field(0.0, ge=0, lt=1, description="least probability of a kept token; 0 keeps all")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> EpsilonCutoff | None:
        """The equal of an `EpsilonLogitsWarper`."""
        return adopted(cls, theirs, epsilon_cutoff=theirs.epsilon)

    @property
    def reach(self) -> int | None:
        """The data tell; with 0 nothing is dropped."""
        return 0 if self.params.epsilon_cutoff else None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if not self.params.epsilon_cutoff:
            return scores
        return self._drop(scores, scores.softmax(-1), self.params.epsilon_cutoff)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.params.epsilon_cutoff:
            return candidates
        if self.min_tokens_to_keep > 1:
            candidates = candidates.settled()
        shares = candidates.shares()
        margin = shares.log() - math.log(self.params.epsilon_cutoff)
        return self._cut(candidates, margin, candidates.error(shares))


class EtaCutoff(_Cutoff, genmode.StandIn):
    """Keeps tokens of at least a probability that falls with the row's entropy."""

    contract_version = 1
    name = "eta_cutoff"
    paper = "Hewitt, Manning and Liang, Truncation sampling as language model desmoothing, 2022, arXiv:2210.15191"
    replaces = ("EtaLogitsWarper",)

    class Params(genmode.Params):
        eta_cutoff: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="least probability of a kept token where the row is decided; 0 keeps all",
        )

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> EtaCutoff | None:
        """The equal of an `EtaLogitsWarper`."""
        return adopted(cls, theirs, eta_cutoff=float(theirs.epsilon))

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if not self.params.eta_cutoff:
            return scores
        epsilon = torch.full((), self.params.eta_cutoff, dtype=torch.float32, device=scores.device)
        logs = scores - scores.logsumexp(-1, keepdim=True)
        entropy = -logs.clamp(min=torch.finfo(logs.dtype).min).mul_(logs.softmax(-1)).sum(-1, keepdim=True)
        cutoff = torch.min(epsilon, torch.sqrt(epsilon) * torch.exp(-entropy))
        return self._drop(scores, scores.softmax(-1), cutoff)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.params.eta_cutoff:
            return candidates
        candidates = candidates.settled()
        shares = candidates.shares()
        entropy = entropy_of(shares)
        fixed = math.log(self.params.eta_cutoff)
        margin = shares.log() - (fixed / 2 - entropy).clamp(max=fixed)
        return self._cut(candidates, margin, (2 + entropy) * candidates.error(shares))
