"""What tests of a CUDA device share: calls in which waiting for the device is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import genmode
from genmode.registry import Registry, use


class Watch:
    """From the third to the seventh step, any wait for the device is an error."""

    @genmode.hookimpl
    def genmode_session_step(self, step: Any) -> None:
        if step.index == 2:
            torch.cuda.set_sync_debug_mode("error")
        if step.index == 6:  # what follows the last step may wait
            torch.cuda.set_sync_debug_mode("default")

    @genmode.hookimpl
    def genmode_session_end(self) -> None:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def no_waits() -> Iterator[None]:
    """Calls in which waiting is an error; torch warns that the mode is a prototype, which tests have to ignore."""
    host = Registry()
    host.register(Watch(), kind="hooks", name="watch")
    host.configure(hooks=["watch"])
    with use(host):
        yield
