"""When the host may look at a tensor: at once on the CPU, and on a device only by waiting for what is queued there.

On a device the host runs ahead of the work that it queues, and waits for nothing within a loop. With `late_host` the
same code paths run on the CPU, so that tests of components cover them without a device.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["Arriving", "is_free", "late_host", "surely_all", "surely_none", "to_device"]

_late: ContextVar[bool] = ContextVar("genmode_late_host", default=False)


def is_free(device: torch.device) -> bool:
    """Whether the host may look at tensors of the device without waiting."""
    return device.type == "cpu" and not _late.get()


def surely_none(mask: Tensor) -> bool:
    """Whether no element of a boolean tensor is true, where the host can tell for free; False where it cannot.

    Use it to skip work, never to change results.
    """
    return is_free(mask.device) and not bool(mask.any())


def surely_all(mask: Tensor) -> bool:
    """Whether every element is true, where the host can tell for free; False where it cannot."""
    return is_free(mask.device) and bool(mask.all())


@contextmanager
def late_host() -> Generator[None, None, None]:
    """Within the block, the host treats the CPU as a device: it learns of a step one step late."""
    token = _late.set(True)
    try:
        yield
    finally:
        _late.reset(token)


class Arriving:
    """Values on their way from a device to the host, copied behind the work that made them.

    Args:
        values: any tensor. On the CPU it is there already.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> Tensor:
        """The values on the host, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._values


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
