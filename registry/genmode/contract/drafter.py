"""The contract of drafters: what rows may go on with, guessed for less than the model's own forwards cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .component import Component
from .traits import Need

if TYPE_CHECKING:
    from torch import Tensor

    from .draft import Draft
    from .session import Session, Step
    from .verification import Verification


class Drafter(Component):
    """Guesses how rows continue. Made anew for each call, unless the call gives an object.

    A drafter looks at the session and at models of its own, and changes nothing of the rows: neither history nor scores,
    and random numbers only as `Session.draft_scorer` draws them. It states `Trait.PROBABILITIES` where its drafts have
    them under sampling.

    Class attributes:
        needs: what it asks of the model and the session beside what its strategy needs, see `Need`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        """Whether the flags of a call, as `Strategy.validate` gets them, ask for this drafter where no `draft=` names one."""
        return False

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Refuse contradictory flags before the model runs; see `Strategy.validate`."""

    def begin(self, session: Session, verification: Verification | None) -> None:
        """The session has not run its first step yet.

        Args:
            session: the session.
            verification: what will verify; None where rows take the most probable token. With `Trait.COUPLES` a drafter
                that draws does so with the numbers of the verification, by `draft_scorer(share_randomness=True)`, else
                with others.
        """

    def draft(self, session: Session) -> Draft | None:
        """A guess behind what the rows have become, of at most `session.draft_room` tokens; None for none.

        Asked before the first step as well where transformers drafts then, and behind each commit.
        """
        raise TypeError(f"{type(self).__name__} must define draft(session)")

    def learn(self, step: Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        """The last guess was verified, or a step was run without one.

        Args:
            step: committed; `step.draft` `[rows, k]` is what of the guess was run, None if nothing was.
            chosen: `[rows, k + 1]`, long: what the rows took, each up to `agreed` and one more.
            agreed: `[rows]`, long: how many of the draft's tokens they took.
            running: `[rows]`, bool: rows that were decoded in this step; what is said of others is undefined.
        """

    def reset(self) -> None:
        """The call has ended, well or not; let go of what belongs to it."""
