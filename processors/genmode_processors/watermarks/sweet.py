"""SWEET (Lee et al. 2023, "Who Wrote this Code? Watermarking for Code Generation").

Hashed green lists (`green.py`), but only where the model is unsure: a row whose next token has an entropy of at
most the threshold is left alone (section 4), so that what must come as it is comes so. The detector counts only
tokens with an entropy above the threshold, and needs the model for it:

    H = - sum over v of p(v) log p(v), in nats;   score[v] += bias  if H > threshold and v is green

In text without the mark the octets are independent of the entropies, so that the null stays a binomial of the
counted tokens whatever model, prompt or temperature the detector is given; a poor guess costs power alone.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from . import keyed_hash
from .contexts import current
from .green import ContextParams, Greens


class Sweet(Greens):
    """Green lists where the entropy is high. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "sweet"
    paper = "Lee et al. 2023, https://arxiv.org/abs/2305.15060"
    reads_model = True

    class Params(ContextParams):
        entropy_threshold: float = Field(0.9, ge=0, description="entropy in nats up to which a row is left alone")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._work: tuple[Tensor, Tensor] | None = None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        contexts, ready = current(history, self.width)
        keys = keyed_hash.context_keys(self.key, contexts)
        unsure = self.gist(scores) > self.params.entropy_threshold
        octets = keyed_hash.octets(keys, scores.shape[1])
        return self.favour(scores, octets, unsure if ready is None else unsure & ready)

    def gist(self, logits: Tensor) -> Tensor:
        """The entropy of each prediction in nats: `[n]`, float32."""
        work = self._work
        if work is None or work[0].shape != logits.shape:
            first = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
            work = self._work = (first, torch.empty_like(first))
        below, shares = work
        # exp(-80) is nothing beside exp(0), and slow arithmetic with numbers near zero is avoided
        torch.sub(logits, logits.amax(-1, keepdim=True), out=below).clamp_(min=-80.0)
        total = torch.exp(below, out=shares).sum(-1)
        return total.log() - below.mul_(shares).sum(-1) / total

    def reset(self) -> None:
        super().reset()
        self._work = None

    def evidence(self, tokens: Tensor, gist: Tensor | None) -> genmode.Evidence:
        values, draws, _ = super().evidence(tokens, None)
        if gist is not None:
            values = values.masked_fill(~(gist > self.params.entropy_threshold), torch.nan)
        return genmode.Evidence(values, draws)
