"""What tests of a CUDA device share: work in which waiting for the device is an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import genmode
from genmode.plugins.registry import Registry, use


def wait_is_error(wrong: bool) -> None:
    """Whether torch raises where the host waits for the device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error" if wrong else "default")


@contextmanager
def never_waiting(device: torch.device | str) -> Iterator[None]:
    """Waiting for the device is an error, if it is one of CUDA's."""
    if torch.device(device).type != "cuda":
        yield
        return
    wait_is_error(True)
    try:
        yield
    finally:
        wait_is_error(False)


class Watch:
    """From the third to the seventh step, any wait for the device is an error."""

    @genmode.hookimpl
    def genmode_session_step(self, step: Any) -> None:
        if step.index == 2:
            wait_is_error(True)
        if step.index == 6:  # what follows the last step may wait
            wait_is_error(False)

    @genmode.hookimpl
    def genmode_session_end(self) -> None:
        wait_is_error(False)


@contextmanager
def no_waits() -> Iterator[None]:
    """Calls in which waiting is an error."""
    host = Registry()
    host.register(Watch(), kind="hooks", name="watch")
    host.configure(hooks=["watch"])
    with use(host):
        yield
