"""What has happened to the rows, brought from the device to the host in order.

A matcher lives on the host and needs the chosen tokens there. On the CPU they are there at once. From CUDA each
event is copied to pinned memory behind the work that made it, and read when the next mask is asked for: the copy
of a committed token runs before the next forward, so the host waits for the token and not for that forward.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

What = Literal["accept", "reorder", "rollback"]


class Events:
    """A queue of events that are on their way."""

    def __init__(self) -> None:
        self._waiting: list[tuple[What, Tensor, torch.cuda.Event | None]] = []

    def put(self, what: What, values: Tensor) -> None:
        """Send `values` `[rows]`, long, to the host."""
        if values.device.type != "cuda":
            self._waiting.append((what, values, None))
            return
        slot = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        slot.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((what, slot, event))

    def take(self) -> list[tuple[What, list[int]]]:
        """All that was sent since, in order; waits until it has arrived."""
        waiting, self._waiting = self._waiting, []
        arrived: list[tuple[What, list[int]]] = []
        for what, values, event in waiting:
            if event is not None:
                event.synchronize()
            arrived.append((what, values.tolist()))
        return arrived
