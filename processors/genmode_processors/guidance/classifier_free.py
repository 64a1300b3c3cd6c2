"""Classifier-free guidance: away from what the model says of a negative prompt.

With log p and log p' the logarithms of the softmax of the model's scores behind the prompt and behind the negative one,
and g the scale:

    score = g log p + (1 - g) log p'

Source: Sanchez et al. 2023, "Stay on topic with classifier-free guidance", arXiv:2306.17806, in the form of
transformers. Equal scores under both stay equal. What is not supported stands in `base`.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .base import Guidance, log_softmax


class ClassifierFreeGuidance(Guidance, genmode.StandIn):
    """Away from a negative prompt, by a scale.

    Stage bias, before all others, as in transformers. Equal of transformers'
    `UnbatchedClassifierFreeGuidanceLogitsProcessor`, also with batches whose negative prompts are padded on the
    left, one negative prompt for all rows, and drafts. Where a model keeps its state elsewhere than in
    `past_key_values` (Mamba with `use_cache`), transformers' object, which then reads the last token alone, stays in its
    place, and so it does where it can beside beams, whose moves its context does not follow; this one is right there if it
    is named. Without a negative prompt the context is the last token of the prompt. A negative prompt's mask is as long as
    the prompt.
    """

    contract_version = 1
    name = "classifier_free_guidance"
    paper = "Sanchez et al., Stay on topic with classifier-free guidance, 2023, arXiv:2306.17806"
    stage = genmode.Stage.BIAS
    before = ("sequence_bias",)
    replaces = ("UnbatchedClassifierFreeGuidanceLogitsProcessor",)

    class Params(genmode.Params):
        guidance_scale: float = Field(1.0, description="weight of the prompt against the negative one; 1 for none")
        negative_prompt_ids: Any = Field(
            None, exclude=True, description="[rows or 1, length], tokens to stay away from"
        )
        negative_prompt_attention_mask: Any = Field(None, exclude=True, description="0 where these are padding")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._model: Any = None
        self._theirs: Any = None
        self._forgets = False

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> ClassifierFreeGuidance | None:
        """Scale and context of the transformers object; None if it has begun to decode."""
        context: dict[str, Any] = theirs.unconditional_context
        # without a cache it reads its whole context at each step
        keeps = not context["use_cache"] or "past_key_values" in inspect.signature(theirs.model.forward).parameters
        if not context["first_pass"]:
            return None
        scale = theirs.guidance_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
            raise genmode.ParameterError(
                f"guidance_scale={scale!r} is not allowed; give a finite number, 1 for no guidance"
            )
        own = cls(
            guidance_scale=scale, negative_prompt_ids=context["input_ids"],
            negative_prompt_attention_mask=context["attention_mask"],
        )  # fmt: skip
        own._model, own._theirs, own._forgets = theirs.model, theirs, not keeps
        return own

    def begin(self, context: genmode.Context) -> None:
        negative, mask = self.params.negative_prompt_ids, self.params.negative_prompt_attention_mask
        beams = getattr(context.generation_config, "num_beams", None) or 1
        tokens = context.history.tail(1) if negative is None else negative
        self._beams = beams > 1
        differs = self._beams or self._forgets
        if (
            not differs or not _fits(tokens, mask, context) or context.encoder_input_ids is not None
        ):  # the last two transformers' cannot do
            self._theirs = None
        if self.params.guidance_scale == 1 or self._theirs is not None:
            return
        self.side_models = [context.side_model(tokens, mask, model=self._model)]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, float32, a new tensor."""
        if self._theirs is not None:
            theirs: Tensor = self._theirs(history.tokens, scores)
            return theirs
        scores = log_softmax(scores)
        scale: float = self.params.guidance_scale
        if scale == 1:
            return scores
        other = self.others()[0].log_softmax(-1)
        return scores.sub_(other).mul_(scale).add_(other) if scale else other.where(scores > -torch.inf, -torch.inf)

    def reorder(self, rows: Tensor) -> None:
        if self._theirs is not None and not self._beams:
            raise genmode.UnsupportedError(
                f"guidance_scale on {type(self._model).__name__}, whose cache transformers' own guidance keeps, cannot follow "
                "rows that come and go; leave it out, or give use_cache=False"
            )


def _fits(negative: Any, mask: Any, context: genmode.Context) -> bool:
    """Whether transformers' object can take a negative prompt and its mask: ids, one row for each that is decoded."""
    if not isinstance(negative, Tensor) or negative.is_floating_point() or negative.is_complex():
        return False
    if negative.dim() != 2 or len(negative) != context.rows or not negative.numel():
        return False
    known = int(negative.min()) >= 0 and int(negative.max()) < context.vocab_size
    return known and (mask is None or (isinstance(mask, Tensor) and mask.shape == negative.shape))
