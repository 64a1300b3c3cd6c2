"""The processors of one call, which are told what happens to the rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..contract.history import History
from ..contract.processor import BacktrackingProcessor, LogitsProcessor
from ..contract.traits import Trait
from ..errors import GenmodeError
from .links import Line, Link, TransformersProcessor
from .pure_chain import PureChain, pure_chain

FOLLOWED = ("accept", "reorder", "rollback")
"""What happens to rows: what a follower is told."""
LISTENED = (*FOLLOWED, "forced_tokens", "on_finish")
"""Methods that are called on those processors alone which define them."""


class Chain(Line):
    """The processors of one call, which are told what happens to the rows."""

    def __init__(self, links: Sequence[Link]) -> None:
        super().__init__(links)
        self.keeps_nan = not any(_removes_nan(one.processor) for one in links)
        self._listening = {method: self._overriding(method) for method in LISTENED}
        self.stateful = any(self._listening[method] for method in FOLLOWED)
        self.pure: PureChain | None = pure_chain(Line(links))
        """The processors as one function of the scores; None where one of them is more than that."""
        self.backtrackers: list[BacktrackingProcessor] = [
            one for one in self._objects if isinstance(one, BacktrackingProcessor) and one.max_backtrack != 0
        ]

    def follow(self, follower: Any) -> None:
        """Have an object with `accept`, `reorder` and `rollback` learn, before the processors, what rows do."""
        for method in FOLLOWED:
            self._listening[method].insert(0, follower)
        self.stateful = True

    def replaced(self, stand_ins: Mapping[int, Any]) -> None:
        """Call `stand_ins[id(processor)]` in place of each processor, each by itself."""
        lists: list[list[Any]] = [self._objects, self.backtrackers, *self._listening.values()]
        for objects in lists:
            objects[:] = [stand_ins[id(one)] for one in objects]
        self.pure = None

    def _overriding(self, method: str) -> list[Any]:
        base = getattr(LogitsProcessor, method)
        return [one for one in self._objects if getattr(type(one), method) is not base]

    def begin(self, context: Any) -> None:
        """A call begins."""
        for one in self._objects:
            self._told(one, "begin", context)

    def accept(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`."""
        self._tell("accept", tokens)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._tell("reorder", rows)

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` accepted tokens."""
        self._tell("rollback", counts)

    @property
    def may_force(self) -> bool:
        """Whether any processor may know how rows go on."""
        return bool(self._listening["forced_tokens"])

    def forced_tokens(self, limit: int) -> tuple[Tensor, Tensor] | None:
        """What the first processor that knows it says of how rows go on; see `LogitsProcessor.forced_tokens`."""
        for one in self._listening["forced_tokens"]:
            known: tuple[Tensor, Tensor] | None = self._told(one, "forced_tokens", limit)
            if known is not None:
                return known
        return None

    def on_finish(self, sequences: Tensor) -> None:
        """The strategy has returned, and this is the result."""
        self._tell("on_finish", sequences)

    def backtrack(self, history: History) -> list[Tensor | None]:
        """What each of `backtrackers` would take back behind these rows: `[rows]`, long, or None."""
        return [self._told(one, "backtrack", history) for one in self.backtrackers]

    def backtracked(self, history: History, counts: Sequence[Tensor]) -> None:
        """Rows have gone back, as each of `backtrackers` asked by `counts[i]` `[rows]`."""
        for one, mine in zip(self.backtrackers, counts, strict=True):
            self._told(one, "backtracked", history, mine)

    def release(self) -> None:
        """The call has ended: let go of all that was told of it."""
        self.links, self._objects, self.backtrackers, self.pure = [], [], [], None
        for followers in self._listening.values():
            followers.clear()

    def endings(self) -> list[Callable[[], None]]:
        """What to do when the call has ended, one function for each processor."""
        return [functools.partial(self._told, one, "reset") for one in self._objects]

    def _tell(self, method: str, *arguments: Any) -> None:
        for one in self._listening[method]:
            self._told(one, method, *arguments)

    def _told(self, one: Any, method: str, *arguments: Any) -> Any:
        try:
            return getattr(one, method)(*arguments)
        except GenmodeError:
            raise
        except Exception as error:
            raise self._failure(one, method, error) from error


def _removes_nan(processor: LogitsProcessor) -> bool:
    if isinstance(processor, TransformersProcessor):
        return processor.removes_nan
    return Trait.REMOVES_NAN in processor.traits
