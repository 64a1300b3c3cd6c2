"""Guidance: what a second model or a second context says, set against what the model says.

With z the scores of the model, z' those of the model in the second context, and z+ and z- those of an expert and
an anti-expert (each [rows, vocab]), and log p the logarithm of a softmax:

    classifier_free_guidance   g log p + (1 - g) log p'                       second context: a negative prompt
    context_aware              log softmax((1 + a) z - a z')                  second context: the prompt without context
    contrastive_decoding       log p - log softmax(z- / t)                    where p >= c max p, else -inf
                 with beta     log softmax((1 + b) z - b z- / t)              there, else -inf
    dexperts                   log softmax(z + a (z+ - z-))                   proxy-tuning is the same

Sources: Sanchez et al. 2023, "Stay on topic with classifier-free guidance", arXiv:2306.17806, in the form of
transformers; Shi et al. 2023, "Trusting your evidence: hallucinate less with context-aware decoding",
arXiv:2305.14739, section 2; Li et al. 2023, "Contrastive decoding", arXiv:2210.15097, equations 3 and 4, and
O'Brien and Lewis 2023, "Contrastive decoding improves reasoning in large language models", arXiv:2309.09117,
section 2.2; Liu et al. 2021, "DExperts", arXiv:2105.03023, section 2.2, and Liu et al. 2024, "Tuning language
models by proxy", arXiv:2401.08565, section 2.

The second model has a cache of its own and reads each token once (`genmode.Session.companion`); rows of any
batch, beams, drafts and rows that are taken back are followed. Every draft position costs it a forward. Equal
scores under both stay equal; ties at the cutoff are kept. Masked tokens (-inf) stay masked, and a row whose every
token is masked stays so, never NaN. Normalising makes scores comparable between beams; Li's are the contrast that
the paper adds up over a beam. Not supported: a second model with another vocabulary, and a second context of an
encoder-decoder model, whose context is its encoder's.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

if TYPE_CHECKING:
    from genmode.session import Companion


class Guidance(genmode.LogitsProcessor):
    """What the family shares: scores of companions, made when the call begins."""

    stage = genmode.Stage.GUIDANCE

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._beside: list[Companion] = []

    def others(self) -> list[Tensor]:
        """What each companion expects, `[rows, vocab]`, float32; may be written."""
        if not self._beside:
            raise RuntimeError(f"{self.name}: process was called before begin")
        return [one.logits() for one in self._beside]

    def needed(self, key: str, what: str) -> Any:
        """The value of a parameter; raises `ParameterError` if it is not given."""
        value = getattr(self.params, key)
        if value is None:
            raise genmode.ParameterError(f"{self.name} needs {key}=: {what}")
        return value

    def reset(self) -> None:
        self._beside = []


class ClassifierFreeGuidance(Guidance):
    """Away from a negative prompt, by a scale.

    Stage bias, before all others, as in transformers. Equal of transformers'
    `UnbatchedClassifierFreeGuidanceLogitsProcessor`, also with batches whose negative prompts are padded on the
    left, one negative prompt for all rows, beams and drafts. Where a model keeps its state elsewhere than in
    `past_key_values` (Mamba), transformers' object, which then reads the last token alone, stays in its place; this
    one is right there if it is named. Without a negative prompt the context is the last
    token of the prompt. A negative prompt's mask is as long as the prompt.
    """

    contract_version = 1
    name = "classifier_free_guidance"
    paper = "Sanchez et al., Stay on topic with classifier-free guidance, 2023, arXiv:2306.17806"
    stage = genmode.Stage.BIAS
    before = ("sequence_bias",)
    replaces = ("UnbatchedClassifierFreeGuidanceLogitsProcessor",)

    class Params(genmode.Params):
        guidance_scale: float = Field(
            1.0, allow_inf_nan=False, description="weight of the prompt against the negative one; 1 for none"
        )
        negative_prompt_ids: Any = Field(
            None, exclude=True, description="[rows or 1, length], tokens to stay away from"
        )
        negative_prompt_attention_mask: Any = Field(None, exclude=True, description="0 where these are padding")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._model: Any = None

    @classmethod
    def adopt(cls, processor: Any) -> ClassifierFreeGuidance | None:
        """Scale and context of the transformers object; None if it has begun to decode, or forgets as it decodes."""
        context: dict[str, Any] = processor.unconditional_context
        keeps = "past_key_values" in inspect.signature(processor.model.forward).parameters
        if not (context["first_pass"] and keeps):
            return None
        scale = processor.guidance_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
            raise genmode.ParameterError(
                f"guidance_scale={scale!r} is not allowed; give a finite number, 1 for no guidance"
            )
        own = cls(
            guidance_scale=scale, negative_prompt_ids=context["input_ids"],
            negative_prompt_attention_mask=context["attention_mask"],
        )  # fmt: skip
        own._model = processor.model
        return own

    def begin(self, session: genmode.Session) -> None:
        if self.params.guidance_scale == 1:
            return
        context, mask = self.params.negative_prompt_ids, self.params.negative_prompt_attention_mask
        if context is None:
            context, mask = session.history.ids[:, session.prompt_length - 1 : session.prompt_length], None
        self._beside = [session.companion(context, mask, model=self._model)]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, float32, a new tensor."""
        scores = log_softmax(scores)
        scale: float = self.params.guidance_scale
        if scale == 1:
            return scores
        other = self.others()[0].log_softmax(-1)
        return scores.sub_(other).mul_(scale).add_(other) if scale else other.where(scores > -torch.inf, -torch.inf)


class ContextAware(Guidance):
    """Toward what the context adds: the prompt with its context against the prompt without.

    Stage guidance; `[rows, vocab]`, float32, a new tensor. Raises `ParameterError` without `context_free_ids`.
    """

    contract_version = 1
    name = "context_aware"
    paper = "Shi et al., Trusting your evidence: context-aware decoding, 2023, arXiv:2305.14739"

    class Params(genmode.Params):
        context_alpha: float = Field(
            0.5, ge=0, allow_inf_nan=False, description="weight of what the context adds; 0 for none"
        )
        context_free_ids: Any = Field(None, exclude=True, description="[inputs or 1, length], prompts without context")
        context_free_attention_mask: Any = Field(None, exclude=True, description="0 where these are padding")

    def begin(self, session: genmode.Session) -> None:
        context = self.needed("context_free_ids", "the prompts without their context, padded on the left")
        self._beside = [session.companion(context, self.params.context_free_attention_mask)]

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
        amateur_temperature: float = Field(1.0, gt=0, allow_inf_nan=False, description="temperature of the worse model")
        contrastive_alpha: float = Field(
            0.1, ge=0, le=1, description="least probability of a token, as a share of the best one's"
        )
        contrastive_beta: float | None = Field(
            None, ge=0, allow_inf_nan=False, description="O'Brien's weight of the contrast; Li's contrast if not given"
        )

    def begin(self, session: genmode.Session) -> None:
        amateur = self.needed("amateur_model", "a smaller or worse model with the same vocabulary")
        self._beside = [session.companion(model=amateur)]

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
        expert_alpha: float = Field(1.0, allow_inf_nan=False, description="weight of z+ - z-")

    def begin(self, session: genmode.Session) -> None:
        anti = self.needed(
            "anti_expert_model", "a model of what is unwanted, or for proxy-tuning the untuned small one"
        )
        expert = self.params.expert_model
        self._beside = [session.companion(model=model) for model in (anti, expert) if model is not None]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        anti, *expert = self.others()
        difference = anti.sub_(expert[0] if expert else scores)
        moved = torch.add(scores, difference, alpha=-self.params.expert_alpha)
        return log_softmax(moved.where(scores > -torch.inf, scores))


def log_softmax(scores: Tensor) -> Tensor:
    """log softmax, `[rows, vocab]`, a new tensor; a row of -inf alone stays one."""
    return scores - scores.logsumexp(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
