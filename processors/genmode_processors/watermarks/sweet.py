"""SWEET (Lee et al. 2023, "Who Wrote this Code? Watermarking for Code Generation").

Hashed green lists (`green.py`), but only where the model is unsure: a row whose next token has an entropy of at
most the threshold is left alone (section 4), so that what must come as it is comes so. The detector counts only
tokens with an entropy above the threshold, and needs the model for it:

    H = - sum over v of p(v) log p(v), in nats;   score[v] += bias  if H > threshold and v is green

In text without the mark the octets are independent of the entropies, so that the null stays a binomial of the
counted tokens whatever model, prompt or temperature the detector is given; a poor guess costs power alone.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync

from . import keyed_hash
from .contexts import current
from .green import ContextParams, Greens

PART = 1 << 17
"""Scores that are worked on at a time on a CPU."""
LOG2_E = math.log2(math.e)


class Sweet(Greens):
    """Green lists where the entropy is high. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "sweet"
    paper = "Lee et al. 2023, https://arxiv.org/abs/2305.15060"
    traits = frozenset({genmode.Trait.READS_MODEL})

    class Params(ContextParams):
        entropy_threshold: float = Field(0.9, ge=0, description="entropy in nats up to which a row is left alone")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        contexts, ready = current(history, self.width)
        keys = keyed_hash.context_keys(self.key, contexts)
        unsure = self.statistic(scores) > self.params.entropy_threshold
        octets = keyed_hash.octets(keys, scores.shape[1])
        return self.favour(scores, octets, unsure if ready is None else unsure & ready)

    def statistic(self, logits: Tensor) -> Tensor:
        """The entropy of each prediction in nats: `[n]`, float32."""
        # with y = (x - max x) log2 e:  H log2 e = log2 sum 2^y - sum y 2^y / sum 2^y, in parts that stay in the cache.
        # 2^-116 is nothing beside 2^0, and keeps 0 * -inf and slow arithmetic with numbers near zero away
        least = logits.amax(-1, keepdim=True) * -LOG2_E
        width = max(1, PART // len(logits)) if host_sync.is_free(logits.device) else logits.shape[1]
        total, mean = torch.zeros(2, len(logits), device=logits.device).unbind()
        for some in logits.split(width, 1):
            below = torch.add(least, some, alpha=LOG2_E).clamp_(min=-116.0)
            shares = below.exp2()
            total += shares.sum(-1)
            mean += shares.mul_(below).sum(-1)
        return (total.log2() - mean / total) / LOG2_E

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        values, draws, _ = super().evidence(tokens, None)
        if statistic is not None:
            values = values.masked_fill(~(statistic > self.params.entropy_threshold), torch.nan)
        return genmode.Evidence(values, draws)
