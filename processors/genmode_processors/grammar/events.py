"""What has happened to the rows, brought to the host in order.

A matcher lives on the host and needs the chosen tokens there. Each event is sent behind the work that made it, and
read when the next mask is asked for: the copy of a committed token runs before the next forward, so the host waits for
the token and not for that forward.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from genmode.host_sync import Arriving

What = Literal["accept", "reorder", "rollback"]


class Events:
    """A queue of events that are on their way."""

    def __init__(self) -> None:
        self._waiting: list[tuple[What, Arriving]] = []

    def put(self, what: What, values: Tensor) -> None:
        """Send `values` `[rows]`, long, to the host."""
        self._waiting.append((what, Arriving(values)))

    def take(self) -> list[tuple[What, list[int]]]:
        """All that was sent since, in order; waits until it has arrived."""
        waiting, self._waiting = self._waiting, []
        return [(what, values.wait().tolist()) for what, values in waiting]
