"""Contrast: what a second model or a second context says, set against what the model says.

With z the scores of the model, z' those of the model in the second context, and z+ and z- those of an expert and
an anti-expert (each [rows, vocab]), and log p the logarithm of a softmax:

    context_aware              log softmax((1 + a) z - a z')                  second context: the prompt without context
    contrastive_decoding       log p - log softmax(z- / t)                    where p >= c max p, else -inf
                 with beta     log softmax((1 + b) z - b z- / t)              there, else -inf
    dexperts                   log softmax(z + a (z+ - z-))                   proxy-tuning is the same

Sources: Shi et al. 2023, "Trusting your evidence: hallucinate less with context-aware decoding", arXiv:2305.14739,
section 2; Li et al. 2023, "Contrastive decoding", arXiv:2210.15097, equations 3 and 4, and O'Brien and Lewis 2023,
"Contrastive decoding improves reasoning in large language models", arXiv:2309.09117, section 2.2; Liu et al. 2021,
"DExperts", arXiv:2105.03023, section 2.2, and Liu et al. 2024, "Tuning language models by proxy", arXiv:2401.08565,
section 2.

Equal scores under both stay equal; ties at the cutoff are kept. Li's contrast is what the paper adds up over a beam. What
is not supported stands in `base`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .base import Guidance, log_softmax


class ContextAware(Guidance):
    """Toward what the context adds: the prompt with its context against the prompt without.

    Stage guidance; `[rows, vocab]`, float32, a new tensor. Raises `ParameterError` without `context_free_ids`.
    """

    contract_version = 1
    name = "context_aware"
    paper = "Shi et al., Trusting your evidence: context-aware decoding, 2023, arXiv:2305.14739"

    class Params(genmode.Params):
        context_alpha: float = Field(0.5, ge=0, description="weight of what the context adds; 0 for none")
        context_free_ids: Any = Field(None, exclude=True, description="[inputs or 1, length], prompts without context")
        context_free_attention_mask: Any = Field(None, exclude=True, description="0 where these are padding")

    def begin(self, context: genmode.Context) -> None:
        prompts = self.needed("context_free_ids", "the prompts without their context, padded on the left")
        self.side_models = [context.side_model(prompts, self.params.context_free_attention_mask)]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        alpha: float = self.params.context_alpha
        return log_softmax(
            torch.add(scores, self.others()[0].sub_(scores), alpha=-alpha).where(scores > -torch.inf, scores)
        )


class ContrastiveDecoding(Guidance):
    """Plausible tokens that a better model prefers more than a worse one.

    Stage guidance; `[rows, vocab]`, float32, a new tensor. The best token is always plausible. Raises
    `ParameterError` without `amateur_model`.
    """

    contract_version = 1
    name = "contrastive_decoding"
    paper = "Li et al., Contrastive decoding, ACL 2023, arXiv:2210.15097; O'Brien and Lewis 2023, arXiv:2309.09117"

    class Params(genmode.Params):
        amateur_model: Any = Field(None, exclude=True, description="the worse model, with the same vocabulary")
        amateur_temperature: float = Field(1.0, gt=0, description="temperature of the worse model")
        contrastive_alpha: float = Field(
            0.1, ge=0, le=1, description="least probability of a token, as a share of the best one's"
        )
        contrastive_beta: float | None = Field(
            None, ge=0, description="O'Brien's weight of the contrast; Li's contrast if not given"
        )

    def begin(self, context: genmode.Context) -> None:
        amateur = self.needed("amateur_model", "a smaller or worse model with the same vocabulary")
        self.side_models = [context.side_model(model=amateur)]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        params, amateur = self.params, self.others()[0]
        if params.amateur_temperature != 1:
            amateur.div_(params.amateur_temperature)
        cutoff = math.log(params.contrastive_alpha) if params.contrastive_alpha else -torch.inf
        dropped = scores < scores.amax(-1, keepdim=True) + cutoff
        if params.contrastive_beta is None:
            return log_softmax(scores).sub_(amateur.log_softmax(-1)).masked_fill_(dropped, -torch.inf)
        contrast = torch.add(scores, amateur.sub_(scores), alpha=-params.contrastive_beta)
        return log_softmax(contrast.where(scores > -torch.inf, scores).masked_fill_(dropped, -torch.inf))


class DExperts(Guidance):
    """The model's scores moved by what an expert and an anti-expert disagree on; also proxy-tuning.

    Stage guidance; `[rows, vocab]`, float32, a new tensor. For proxy-tuning the expert is a small tuned model and
    the anti-expert the same model untuned. Without an expert the model itself is one. Raises `ParameterError`
    without `anti_expert_model`.
    """

    contract_version = 1
    name = "dexperts"
    paper = "Liu et al., DExperts, ACL 2021, arXiv:2105.03023; Tuning language models by proxy, 2024, arXiv:2401.08565"

    class Params(genmode.Params):
        expert_model: Any = Field(None, exclude=True, description="z+; by default the model itself")
        anti_expert_model: Any = Field(None, exclude=True, description="z-")
        expert_alpha: float = Field(1.0, description="weight of z+ - z-")

    def begin(self, context: genmode.Context) -> None:
        anti = self.needed(
            "anti_expert_model", "a model of what is unwanted, or for proxy-tuning the untuned small one"
        )
        expert = self.params.expert_model
        self.side_models = [context.side_model(model=model) for model in (anti, expert) if model is not None]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        anti, *expert = self.others()
        difference = anti.sub_(expert[0] if expert else scores)
        moved = torch.add(scores, difference, alpha=-self.params.expert_alpha)
        return log_softmax(moved.where(scores > -torch.inf, scores))
