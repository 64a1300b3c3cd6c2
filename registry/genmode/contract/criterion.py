"""The contract of criteria: which rows stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from .context import Context
    from .history import History


class StoppingCriterion(Component):
    """Decides which rows stop. Life cycle as of `LogitsProcessor`, without `accept`.

    Candidates that are only looked at are checked by a shallow copy that was reordered to their rows, so
    `reorder` and `check` replace state instead of writing into it.

    With `Trait.READS_SCORES`, `check(history, scores)` takes the scores `[rows, vocab]`, float32, that the last token was
    chosen from as well.
    """

    def begin(self, context: Context) -> None:
        """A call begins."""

    def check(self, history: History) -> Tensor:
        """Which rows are done after their last token: `[rows]`, bool, on the device of the tokens."""
        raise TypeError(f"{type(self).__name__} must define check(history)")

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens; `counts` is `[rows]`, long."""

    def reset(self) -> None:
        """The call has ended; forget it."""
