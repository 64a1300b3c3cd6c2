"""Stop each row at its own length: row r is done with `row_max_new_tokens[r]` tokens behind the prompt.

One number for each input serves all its rows (beams, returned sequences). A limit of 0 stops a row at its
first check, that is behind its first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BeforeValidator, Field

import genmode

from ..row_ops import as_ints, every, expand_rows

if TYPE_CHECKING:
    from torch import Tensor


class RowLimits(genmode.StoppingCriterion):
    """Stop each row at its own length.

    Raises `ParameterError` unless there is one number for each row or for each input.
    """

    contract_version = 1
    name = "row_limits"

    class Params(genmode.Params):
        row_max_new_tokens: Annotated[
            tuple[Annotated[int, Field(ge=0)], ...] | None, Field(min_length=1), BeforeValidator(as_ints)
        ] = Field(None, description="most new tokens, one number for each row or input")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._limits: Tensor | None = None  # [rows]

    def begin(self, context: genmode.Context) -> None:
        if self.params.row_max_new_tokens is not None:
            limits = torch.tensor(self.params.row_max_new_tokens, device=context.device)
            self._limits = expand_rows(limits, context.rows, "row_max_new_tokens")

    def check(self, history: genmode.History) -> Tensor:
        if self._limits is None:
            return every(history, False)
        return self._limits <= history.lengths - history.prompt

    def reorder(self, rows: Tensor) -> None:
        if self._limits is not None:
            self._limits = self._limits[rows]

    def reset(self) -> None:
        self._limits = None
