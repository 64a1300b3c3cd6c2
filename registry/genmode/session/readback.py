"""A few numbers a step from a device to the host, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import host_sync


class AsyncReadback:
    """See `genmode.contract.session.AsyncReadback`.

    A device is never waited for beyond the step before: the copy of step t is read after the work of step
    t + 1 has been queued.
    """

    def __init__(self, device: torch.device, width: int) -> None:
        self.deferred = not host_sync.is_free(device)
        cuda = device.type == "cuda"
        self._slots = [torch.zeros(width, dtype=torch.long, pin_memory=cuda) for _ in range(2 * self.deferred)]
        self._events = [torch.cuda.Event() for _ in range(2 * cuda)]
        self._turn = 0

    def exchange(self, values: Tensor) -> Tensor | None:
        if not self.deferred:
            return values
        slot = self._turn % 2
        self._slots[slot].copy_(values, non_blocking=True)
        if self._events:
            self._events[slot].record()
        self._turn += 1
        return None if self._turn == 1 else self.read(1 - slot)

    def last(self) -> Tensor | None:
        """The values of the last exchange, waiting for the device; None if there was none."""
        return None if not self.deferred or self._turn == 0 else self.read((self._turn - 1) % 2)

    def read(self, slot: int) -> Tensor:
        """The values in a slot, once they have arrived."""
        if self._events:
            self._events[slot].synchronize()
        return self._slots[slot].clone()
