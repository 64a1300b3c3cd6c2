"""Building Triton kernels, for CUDA, and the streams for building and capturing.

Where there is no Triton, or it cannot build one, everything goes on without.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch

PARENT_ROWS = torch.int16
"""The dtype of a mask that also says in which row's slots keys lie; see `split_attention.attend`."""

MOST = 128
"""So many of the highest of a row are found at most."""


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
        return importlib.import_module(f"{__package__}.{name}")
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


_streams: dict[tuple[int, str], torch.cuda.Stream] = {}


def stream(purpose: str) -> torch.cuda.Stream:
    """The current device's stream for one purpose, of this package's own.

    torch deals some 32 streams out in turn, and what a thread starts on a stream that another one captures becomes part
    of the graph; so there is one for each purpose and no more. Captures have one on which nothing else runs: cuBLAS
    keeps memory for each stream, and what it has taken outside a capture may be freed under the graph.
    """
    key = torch.cuda.current_device(), purpose
    if key not in _streams:
        _streams[key] = torch.cuda.Stream()
    return _streams[key]


_begun: set[Hashable] = set()
_building: dict[str, list[threading.Thread]] = {}


def build_ahead(kind: str, key: Hashable, device: torch.device, run: Callable[[], object]) -> None:
    """Begin to build the kernels that `run` starts, in a thread of their own; once for each kind and key.

    Whatever goes wrong there is met again, and dealt with, where the kernels are wanted.
    """
    if (kind, key) in _begun or _failed or importlib.util.find_spec("triton") is None:
        return

    def build() -> None:
        try:
            torch.cuda.set_device(device)
            with torch.cuda.stream(stream("build")), torch.device(device):
                run()
        except Exception:  # see above
            return

    _begun.add((kind, key))
    thread = threading.Thread(target=build, name=_BUILDER)
    thread.start()
    _building.setdefault(kind, []).append(thread)


def pending(kind: str) -> bool:
    """Whether kernels of this kind are still being built by other threads than this one."""
    threads = _building.get(kind)
    if not threads or threading.current_thread().name == _BUILDER:
        return False
    _building[kind] = threads = [thread for thread in threads if thread.is_alive()]
    return bool(threads)


def wait(kind: str) -> None:
    """Wait until the kernels of this kind are built, so that nothing is built twice."""
    if pending(kind):
        for thread in tuple(_building[kind]):
            thread.join()


_BUILDER = "genmode-kernels"
