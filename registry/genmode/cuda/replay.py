"""Work of a step that a CUDA device repeats: functions of tensors, captured once and replayed.

A step's own work beside the forward is dozens of small operations, and each costs the host more than the device.
As a graph they are one launch. `Replays` runs a function as it is the first time and records it the second; the
graph is kept with the static buffers, for this call and later ones of the same shapes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .kernels import build as kernels

KEPT = 12
"""Recorded functions kept with one set of static buffers; the one used longest ago goes first."""

SMALL = 8192
"""Arguments of so many bytes at most are copied together by one kernel."""

capturing = threading.Lock()
"""One capture at a time."""


class Argument(NamedTuple):
    """A tensor that a graph reads: which of the function's arguments it is, and where it lies."""

    number: int
    tensor: Tensor
    place: int
    given: bool
    """Whether it is the one that the function was given; else the graph's own."""
    small: Tensor | None
    """Its bytes if they are copied together with others."""


class Recorded:
    """One function for one set of shapes: its graph, the tensors that it reads, and those that it writes."""

    def __init__(self) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None
        self.arguments: list[Argument] = []
        self.results: Any = None
        self.moving: set[int] = set()
        """Arguments, by their number, that were marked as static and were found elsewhere later."""
        self.failed = False

    def record(self, function: Callable[..., Any], arguments: tuple[Any, ...], pool: Any) -> None:
        """Capture `function`; nothing runs.

        Tensors that stay where they are (`mark_static`) are read there, unless they were found elsewhere later; of others the
        graph has copies.

        Args:
            pool: memory pool to take from; None for a new one.
        """
        own = tuple(
            one if not isinstance(one, Tensor) or (is_static(one) and number not in self.moving) else one.clone()
            for number, one in enumerate(arguments)
        )
        graph, side = torch.cuda.CUDAGraph(), kernels.stream("capture")
        pool = torch.cuda.graph_pool_handle() if pool is None else pool
        with capturing:
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    results = function(*own)
                finally:
                    graph.capture_end()
            torch.cuda.current_stream().wait_stream(side)
        for one in results if isinstance(results, tuple) else (results,):
            if isinstance(one, Tensor):
                mark_static(one)
        self.graph, self.results = graph, results
        self.arguments = [
            Argument(
                number, one, one.data_ptr(), one is arguments[number], one.view(torch.uint8) if _small(one) else None
            )
            for number, one in enumerate(own)
            if isinstance(one, Tensor)
        ]

    def fits(self, arguments: tuple[Any, ...]) -> bool:
        """Whether what the graph reads in place lies where it was; notes what does not."""
        moved = {one.number for one in self.arguments if one.given and one.place != arguments[one.number].data_ptr()}
        self.moving |= moved
        return not moved

    def replay(self, arguments: tuple[Any, ...]) -> Any:
        """Run the graph on these arguments."""
        into, out_of = [], []
        for one in self.arguments:
            given = arguments[one.number]
            if one.place == given.data_ptr():
                continue
            if one.small is None or not given.is_contiguous():
                one.tensor.copy_(given)
            else:
                into.append(one.small)
                out_of.append(given.view(torch.uint8))
        if into:
            torch._foreach_copy_(into, out_of)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        if self.graph is not None:
            self.graph.replay()
        return self.results


def _small(tensor: Tensor) -> bool:
    """Whether the bytes of a tensor may be copied together with those of others."""
    return tensor.dim() > 0 and 0 < tensor.nbytes <= SMALL and tensor.is_contiguous()


class Replays:
    """The recorded functions of one set of static buffers."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, Recorded] = OrderedDict()
        self._spare: Recorded | None = None
        """What was dropped last: its memory serves the next recording."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` gives; see `genmode.contract.session.Replay`.

        Nothing is recorded while kernels are built that would be part of it.
        """
        if kernels.pending("select"):
            return function(*arguments)
        key = (
            function,
            *((one.shape, one.stride(), one.dtype) if isinstance(one, Tensor) else one for one in arguments),
        )
        found = self._kept.get(key)
        if found is None:
            self._kept[key] = Recorded()
            if len(self._kept) > KEPT:
                _, self._spare = self._kept.popitem(last=False)
                self._spare.results, self._spare.arguments = None, []
            return function(*arguments)
        self._kept.move_to_end(key)
        if found.failed:
            return function(*arguments)
        if found.graph is None or not found.fits(arguments):
            spare = found if found.graph is not None else self._spare
            try:
                found.record(function, arguments, spare.graph.pool() if spare is not None and spare.graph else None)
            except Exception:  # whatever capture raises for work that it cannot hold; a real fault shows again
                found.failed, found.graph, found.results = True, None, None
                return function(*arguments)
            if spare is self._spare:
                self._spare = None
        return found.replay(arguments)


def mark_static(tensor: Tensor) -> Tensor:
    """Mark a tensor as one that is written in place for as long as its static buffers live; returns it."""
    tensor._genmode_static = True  # type: ignore[attr-defined]
    return tensor


def is_static(tensor: Tensor) -> bool:
    """Whether a tensor is marked so."""
    return getattr(tensor, "_genmode_static", False)
