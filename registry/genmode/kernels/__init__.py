"""Kernels of Triton's, for CUDA. Where there is no Triton, or it cannot build one, everything goes on without."""

from __future__ import annotations

import importlib
import importlib.util
import threading
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch


class KernelError(RuntimeError):
    """Triton could not build or start a kernel."""


_failed = False


def load(name: str) -> Any:
    """The module of this name in here; None where there is no Triton, or where it has failed."""
    if _failed:
        return None
    if name not in _modules:
        _modules[name] = _imported(name)
    return _modules[name]


_modules: dict[str, Any] = {}


def _imported(name: str) -> Any:
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except KernelError:  # this Triton lacks what the module needs
        return None


def give_up(error: Exception) -> bool:
    """Go without kernels from now on if it is one that has failed; whether it is."""
    global _failed
    if not isinstance(error, KernelError):
        return False
    if not _failed:
        warnings.warn(f"Triton cannot be used here, decoding goes on without its kernels: {error}", stacklevel=2)
    _failed = True
    return True


_begun: set[Hashable] = set()
_building: list[threading.Thread] = []


def build_ahead(key: Hashable, device: torch.device, run: Callable[[], object]) -> None:
    """Begin to build the kernels that `run` starts, in a thread of their own; once for each key.

    Whatever goes wrong there is met again, and dealt with, where the kernels are wanted.
    """
    if key in _begun or _failed or importlib.util.find_spec("triton") is None:
        return

    def build() -> None:
        try:
            torch.cuda.set_device(device)
            with torch.cuda.stream(torch.cuda.Stream()), torch.device(device):
                run()
        except Exception:  # see above
            return

    _begun.add(key)
    thread = threading.Thread(target=build, name="genmode-kernels", daemon=True)
    thread.start()
    _building.append(thread)


def wait() -> None:
    """Wait until everything is built that was begun, so that nothing is built twice; not for the threads that build."""
    if not _building or threading.current_thread().name == "genmode-kernels":
        return
    for thread in tuple(_building):
        thread.join()
        if thread in _building:
            _building.remove(thread)
