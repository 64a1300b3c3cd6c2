"""Stop at a length: a row is done when it has `max_length` tokens, prompt and left padding included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import genmode

from ..row_ops import every

if TYPE_CHECKING:
    from torch import Tensor


class MaxLength(genmode.StoppingCriterion, genmode.StandIn):
    """Stop at a length. As transformers' `MaxLengthCriteria`; reads lengths alone."""

    contract_version = 1
    name = "max_length"
    replaces = ("MaxLengthCriteria",)

    skip_checks: ClassVar[Mapping[str, str]] = {
        "left_padding": "left padding counts as part of a row's length, as in transformers",
    }

    class Params(genmode.Params):
        max_length: int | None = Field(None, ge=0, description="most tokens of a row, prompt included")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> MaxLength:
        """The length of the transformers object."""
        return cls(max_length=theirs.max_length)

    def check(self, history: genmode.History) -> Tensor:
        limit: int | None = self.params.max_length
        if limit is None:
            return every(history, False)
        return history.lengths >= limit
