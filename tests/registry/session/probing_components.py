"""Components that ask the model what would follow, as an author would write them."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode


class Curious(genmode.LogitsProcessor):
    """Prefers token 17 where the model would go on from it with token 23."""

    contract_version = 1
    name = "curious"
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.PROBES})

    class Params(genmode.Params):
        curious_weight: float = Field(0.0, ge=0, le=9, description="how much it prefers it", examples=[5.0])

    def begin(self, context: genmode.Context) -> None:
        self.context = context

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        asked = torch.full((len(scores), 1), 17, device=scores.device)
        wish = self.context.probe(asked).logits[:, 0].softmax(-1)[:, 23]
        return scores.index_add(1, asked[0], self.params.curious_weight * wish[:, None])

    def reset(self) -> None:
        del self.context


class Doubtful(genmode.StoppingCriterion):
    """Ends a row where the model would be less sure than this of what follows token 17."""

    contract_version = 1
    name = "doubtful"
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.PROBES})

    class Params(genmode.Params):
        doubtful_below: float = Field(0.0, ge=0, le=1, description="this sure", examples=[0.1])

    def begin(self, context: genmode.Context) -> None:
        self.context = context

    def check(self, history: genmode.History) -> Tensor:
        asked = torch.full((history.rows, 1), 17, device=history.tokens.device)
        return self.context.probe(asked).logits[:, 0].softmax(-1).amax(-1) < self.params.doubtful_below

    def reset(self) -> None:
        del self.context
