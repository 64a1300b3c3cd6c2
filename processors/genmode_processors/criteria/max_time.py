"""Stop by the clock: all rows are done at the first check later than `max_time` seconds after the start.

The clock is monotonic and runs from `begin`; a step that has begun is not interrupted. transformers counts
from where its object is made, by the clock on the wall. Processes of one sharded model may read different
times; the host makes them agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

import genmode

from ..begun import Begun
from ..row_ops import every

if TYPE_CHECKING:
    from torch import Tensor


class MaxTime(genmode.StoppingCriterion, genmode.StandIn):
    """Stop by the clock. As transformers' `MaxTimeCriteria`.

    Args:
        params: the parameters.
        clock: seconds since any fixed moment.
    """

    contract_version = 1
    name = "max_time"
    replaces = ("MaxTimeCriteria",)

    class Params(genmode.Params):
        max_time: float | None = Field(None, ge=0, description="seconds after which decoding stops")

    _begun: Begun[float] = Begun()

    def __init__(self, params: Any = None, *, clock: Callable[[], float] = time.monotonic, **values: Any) -> None:
        super().__init__(params, **values)
        self._clock = clock

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> MaxTime:
        """The limit of the transformers object."""
        return cls(max_time=theirs.max_time)

    def begin(self, context: genmode.Context) -> None:
        self._begun = self._clock()

    def check(self, history: genmode.History) -> Tensor:
        since = self._begun
        late = self.params.max_time is not None and self._clock() - since > self.params.max_time
        return every(history, late)

    def reset(self) -> None:
        self._begun = None
