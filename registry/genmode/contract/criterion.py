"""The contract of criteria: which rows stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from ..session import History, Session


class StoppingCriterion(Component):
    """Decides which rows stop. Life cycle as of `LogitsProcessor`, without `accept`.

    Candidates that are only looked at are checked by a shallow copy that was reordered to their rows, so
    `reorder` and `check` replace state instead of writing into it.

    Class attributes:
        needs_scores: whether `check` takes the scores that the last token was chosen from as well,
            `check(history, scores)` with scores `[rows, vocab]`, float32.
        replaces: names of transformers classes that this one stands in for; see `adopt`.
    """

    needs_scores: ClassVar[bool] = False
    replaces: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def adopt(cls, criterion: Any, tokenizer: Any = None) -> StoppingCriterion | None:
        """The equal of a transformers criterion that `replaces` names, or None to keep that one.

        Args:
            criterion: an object of transformers' own class.
            tokenizer: the call's, if it has one.
        """
        return None

    def begin(self, session: Session) -> None:
        """A call begins."""

    def check(self, history: History) -> Tensor:
        """Which rows are done after their last token: `[rows]`, bool, on the device of the tokens."""
        raise TypeError(f"{type(self).__name__} must define check(history)")

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""

    def reset(self) -> None:
        """The call has ended; forget it."""
