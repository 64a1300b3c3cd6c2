"""Stop at the end-of-sequence token: a row is done when its last token is one of the given ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BeforeValidator, Field

import genmode

from ..begun import Begun
from ..row_ops import as_ints

if TYPE_CHECKING:
    from torch import Tensor


class Eos(genmode.StoppingCriterion, genmode.StandIn):
    """Stop at the end-of-sequence token. As transformers' `EosTokenCriteria`; reads the last tokens alone.

    Ids outside the vocabulary never occur and are allowed.
    """

    contract_version = 1
    name = "eos"
    replaces = ("EosTokenCriteria",)

    class Params(genmode.Params):
        eos_token_id: Annotated[tuple[int, ...] | None, BeforeValidator(as_ints)] = Field(
            None, description="ids that end a row; by default the model's"
        )

    _ids: Begun[Tensor] = Begun()  # [count]

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> Eos:
        """The ids of the transformers object."""
        return cls(eos_token_id=theirs.eos_token_id)

    def begin(self, context: genmode.Context) -> None:
        ids = context.eos_token_ids if self.params.eos_token_id is None else self.params.eos_token_id
        self._ids = torch.tensor(ids, dtype=torch.long, device=context.device)

    def check(self, history: genmode.History) -> Tensor:
        return (history.tail(1) == self._ids).any(1)

    def reset(self) -> None:
        self._ids = None
