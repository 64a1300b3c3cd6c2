"""Scores made safe to sample from: no invalid values, and logarithms of probabilities.

`remove_invalid_values` puts 0 for NaN and the largest number of the scores' type for infinity. Masked tokens stay masked
(transformers gives them the smallest number, which other processors may raise again). `renormalise` puts
`score - log sum exp score`. A row whose every token is masked stays all -inf under it (transformers yields NaN); NaN in
a row spreads over the row. Ties stay ties. Rows do not influence each other; there is no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

import genmode
from genmode import host_sync

from ..order import preceding

if TYPE_CHECKING:
    from torch import Tensor


class RemoveInvalidValues(genmode.LogitsProcessor, genmode.StandIn):
    """Put numbers for NaN and infinities.

    Stage constraint; writes in place; `[rows, vocab]` of any floating type. Native equal of transformers'
    `InfNanRemoveLogitsProcessor`, except that masked tokens stay masked.
    """

    contract_version = 1
    name = "remove_invalid_values"
    stage = genmode.Stage.CONSTRAINT
    traits = frozenset({genmode.Trait.PURE, genmode.Trait.REMOVES_NAN})
    after = preceding("remove_invalid_values")
    replaces = ("InfNanRemoveLogitsProcessor",)
    skip_checks: ClassVar[Mapping[str, str]] = {
        "acts": "it acts on NaN and infinity, which no model of the checks gives",
    }

    class Params(genmode.Params):
        remove_invalid_values: bool = Field(True, description="put numbers for NaN and infinities")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> RemoveInvalidValues:
        """The transformers object has no settings."""
        return cls()

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return scores.nan_to_num_(0.0, neginf=-torch.inf) if self.params.remove_invalid_values else scores


class Renormalise(genmode.LogitsProcessor, genmode.StandIn):
    """Make scores logarithms of probabilities.

    Stage normalise; writes in place; `[rows, vocab]` of any floating type.
    Native equal of transformers' `LogitNormalization`.
    """

    contract_version = 1
    name = "renormalise"
    stage = genmode.Stage.NORMALISE
    traits = frozenset({genmode.Trait.PURE})
    replaces = ("LogitNormalization",)

    class Params(genmode.Params):
        renormalize_logits: bool = Field(True, description="make the final scores log-probabilities")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> Renormalise:
        """The transformers object has no settings."""
        return cls()

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if not self.params.renormalize_logits:
            return scores
        # A row of -inf alone has no logarithm. The smallest number in its first column gives it one, costs
        # the other rows nothing (its exponential is 0 beside any other score) and is masked again after.
        first = scores[:, 0]
        if host_sync.is_free(scores.device) and -torch.inf not in first.tolist():
            return torch.log_softmax(scores, -1, out=scores)
        masked = first.isneginf()
        first.masked_fill_(masked, torch.finfo(scores.dtype).min)
        torch.log_softmax(scores, -1, out=scores)
        first.masked_fill_(masked, -torch.inf)
        return scores
