"""What the tests of constraints share."""

from __future__ import annotations

from collections.abc import Sequence

from genmode_strategies.beams.constraints import Constraint


def feed(constraint: Constraint, tokens: Sequence[int]) -> list[tuple[bool, bool, bool]]:
    return [constraint.update(token) for token in tokens]


class Twice(Constraint):
    """A user's own: a token, and later the same token again."""

    def __init__(self, token: int) -> None:
        self.token, self.seen, self.seqlen = token, 0, 2

    def advance(self) -> int | None:
        return None if self.seen == 2 else self.token

    def does_advance(self, token_id: int) -> bool:
        return self.seen < 2 and token_id == self.token

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        stepped = self.does_advance(token_id)
        self.seen += stepped
        return stepped, self.seen == 2, False

    def reset(self) -> None:
        self.seen = 0

    def remaining(self) -> int:
        return 2 - self.seen

    def copy(self, stateful: bool = False) -> Twice:
        new = Twice(self.token)
        new.seen = self.seen if stateful else 0
        return new
