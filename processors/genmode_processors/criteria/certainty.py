"""Stop when the model is unsure.

Both read the scores from which the last token was drawn, with p their softmax. Confidence stops a row whose
last token had `p < stop_confidence` (transformers' rule for drafts, `assistant_confidence_threshold`, for
every row). Entropy stops a row where `- sum p ln p > stop_entropy`, in nats; masked tokens add nothing. A
value equal to its limit does not stop. A row whose every token was masked has no p and does not stop. Every
row is judged by itself; there is no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

import genmode

if TYPE_CHECKING:
    from torch import Tensor


def required(scores: Tensor | None, name: str) -> Tensor:
    """The scores in float32; raises `ParameterError` if there are none."""
    if scores is None:
        raise genmode.ParameterError(f"{name} needs the scores of the step; the strategy gave none")
    return scores.float()


class Confidence(genmode.StoppingCriterion, genmode.StandIn):
    """Stop when the last token was improbable.

    In place of transformers' `ConfidenceCriteria`, which reads the first row and stops all with it, an adopted one
    does the same; it needs no `output_scores`.
    """

    contract_version = 1
    name = "confidence"
    traits = frozenset({genmode.Trait.READS_SCORES})
    replaces = ("ConfidenceCriteria",)

    class Params(genmode.Params):
        stop_confidence: float = Field(0.0, ge=0, le=1, description="least probability of a token that goes on")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._adopted = False

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> Confidence:
        """The threshold of the transformers object."""
        own = cls(stop_confidence=theirs.assistant_confidence_threshold)
        own._adopted = True
        return own

    def check(self, history: genmode.History, scores: Tensor | None = None) -> Tensor:
        """`scores` `[rows, vocab]` are those from which the last token was drawn."""
        scores = required(scores, self.name)
        last = history.tail(1)
        logarithm = scores.gather(1, last.clamp(0, scores.shape[1] - 1))[:, 0] - scores.logsumexp(1)
        limit: float = self.params.stop_confidence
        done = logarithm.exp() < limit
        return done[:1].expand(history.rows) if self._adopted else done


class Entropy(genmode.StoppingCriterion):
    """Stop when the next token was uncertain."""

    contract_version = 1
    name = "entropy"
    traits = frozenset({genmode.Trait.READS_SCORES})

    class Params(genmode.Params):
        stop_entropy: float = Field(
            torch.inf, ge=0, allow_inf_nan=True, description="largest entropy that goes on, in nats"
        )

    def check(self, history: genmode.History, scores: Tensor | None = None) -> Tensor:
        """`scores` `[rows, vocab]` are those from which the last token was drawn."""
        scores = required(scores, self.name)
        limit: float = self.params.stop_entropy
        p = scores.softmax(1)
        return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(1) > limit
