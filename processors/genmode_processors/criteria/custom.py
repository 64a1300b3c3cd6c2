"""Stop where a function of the history says so."""

from __future__ import annotations

from collections import abc
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from ..row_ops import every


class Callable(genmode.StoppingCriterion):
    """Stop where a function of the history says so.

    The function gets the `genmode.History` and returns `[rows]`, bool, or one bool for all rows. It
    runs on the device of the tokens; if it reads them on the host, every step waits for it. Raises
    `ParameterError` if it returns something else.
    """

    contract_version = 1
    name = "callable"

    class Params(genmode.Params):
        stop_when: abc.Callable[..., Any] | None = Field(
            None, description="function of the history that says which rows are done"
        )

    def check(self, history: genmode.History) -> Tensor:
        function: abc.Callable[[genmode.History], Tensor | bool] | None = self.params.stop_when
        done = False if function is None else function(history)
        if isinstance(done, bool):
            return every(history, done)
        if done.shape != (history.rows,) or done.dtype != torch.bool:
            raise genmode.ParameterError(
                f"stop_when returned {tuple(done.shape)} of {done.dtype}; "
                f"return [{history.rows}] of torch.bool, or one bool"
            )
        return done.to(history.tokens.device)
