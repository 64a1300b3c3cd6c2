"""Work of a step that a CUDA device repeats: functions of tensors, captured once and replayed.

A step's own work beside the forward is dozens of small operations, and each costs the host more than the device.
As a graph they are one launch. `Replays` runs a function as it is the first time and records it the second; the
graph is kept with the workbench, for this call and later ones of the same shapes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import kernels

KEPT = 12
"""Recorded functions kept with one workbench; the one used longest ago goes first."""

capturing = threading.Lock()
"""One capture at a time."""


class Recorded:
    """One function for one set of shapes: its graph, the tensors that it reads, and those that it writes."""

    def __init__(self) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None
        self.arguments: list[Tensor] = []
        self.results: Any = None
        self.copies = False
        self.failed = False

    def record(self, function: Callable[..., Any], arguments: tuple[Any, ...], pool: Any) -> None:
        """Capture `function`; nothing runs.

        Tensors that stay where they are (`stay`) are read there, unless one of them was found elsewhere later;
        of others the graph has copies.

        Args:
            pool: memory pool to take from; None for a new one.
        """
        own = tuple(
            one if not isinstance(one, Tensor) or (stays(one) and not self.copies) else one.clone() for one in arguments
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
                stay(one)
        self.graph, self.results = graph, results
        self.arguments = [one for one in own if isinstance(one, Tensor)]

    def fits(self, tensors: list[Tensor]) -> bool:
        """Whether what the graph reads in place lies where it was."""
        return self.copies or all(
            own.data_ptr() == given.data_ptr() or not stays(own)
            for own, given in zip(self.arguments, tensors, strict=True)
        )

    def replay(self, tensors: list[Tensor]) -> Any:
        """Run the graph on these arguments."""
        for own, given in zip(self.arguments, tensors, strict=True):
            if own.data_ptr() != given.data_ptr():
                own.copy_(given)
        if self.graph is not None:
            self.graph.replay()
        return self.results


class Replays:
    """The recorded functions of one workbench."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, Recorded] = OrderedDict()
        self._spare: Recorded | None = None
        """What was dropped last: its memory serves the next recording."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` gives; see `genmode.session.Session.replay`.

        Nothing is recorded while kernels are built that would be part of it.
        """
        if kernels.pending("select"):
            return function(*arguments)
        key = (function, *((one.shape, one.dtype) if isinstance(one, Tensor) else one for one in arguments))
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
        tensors = [one for one in arguments if isinstance(one, Tensor)]
        if found.graph is None or not found.fits(tensors):
            found.copies = found.graph is not None
            spare = found if found.graph is not None else self._spare
            try:
                found.record(function, arguments, spare.graph.pool() if spare is not None and spare.graph else None)
            except Exception:  # whatever capture raises for work that it cannot hold; a real fault shows again
                found.failed, found.graph, found.results = True, None, None
                return function(*arguments)
            if spare is self._spare:
                self._spare = None
        return found.replay(tensors)


def stay(tensor: Tensor) -> Tensor:
    """Mark a tensor as one that is written in place for as long as its workbench lives; returns it."""
    tensor._genmode_stays = True  # type: ignore[attr-defined]
    return tensor


def stays(tensor: Tensor) -> bool:
    """Whether a tensor is marked so."""
    return getattr(tensor, "_genmode_stays", False)
