"""What captured forwards work on, and where it is kept between calls.

A workbench is a slab and the static tensors that captured forwards read and write. It belongs to one model, number of
rows and capacity, and is kept with the model for the next call of that shape.

A captured forward reads weights where they were. `fingerprint` notes where that is and which modules would run; a model
that was moved, resized, quantised, adapted or hooked since gets new workbenches.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor

from .. import seam
from .attention import TRACE
from .replay import Replays, stay
from .slab import Slab

KEPT = 4
"""Idle workbenches kept with one model; the one used longest ago goes first."""


class Workbench:
    """A slab with static tensors for `rows` rows of up to `capacity` tokens, and the graphs that use them."""

    def __init__(self, layers: int, rows: int, capacity: int, device: torch.device) -> None:
        self.rows, self.capacity = rows, capacity
        self.slab = Slab(layers, rows, capacity)
        self.slab.row_index = torch.arange(rows, device=device)[:, None]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.shift = torch.zeros(rows, dtype=torch.long, device=device)
        self.last = torch.zeros((), dtype=torch.long, device=device)
        self.columns = torch.arange(capacity, device=device)
        self.visible = torch.ones(rows, capacity, dtype=torch.bool, device=device)
        self.own_rows = torch.arange(1, rows + 1, device=device)[:, None]
        self.trace = torch.empty(rows, capacity, dtype=TRACE, device=device)
        """One more than the row in whose slot each key of a row lies; one's own row from the end on."""
        self.traced = False
        """Whether some keys lie elsewhere than in their own row."""
        self.graphs: dict[tuple[Any, ...], Captured] = {}
        self.pool: Any = None
        self.replays = Replays()
        self.logits: Tensor | None = None
        """Where the logits `[rows, vocab]` of every step lie, so that recorded functions find them there."""
        self.precise: Tensor | None = None
        """The same in float32, for steps that ask for them."""

    def show(self, logits: Tensor) -> Tensor:
        """Put logits `[rows, vocab]` where those of every step lie."""
        if self.logits is None:
            self.logits = stay(torch.empty_like(logits))
        return self.logits.copy_(logits)

    def straighten(self, begin: int, end: int) -> None:
        """Bring keys and values of columns `[begin, end)` home into the slots of their own rows."""
        if self.traced:
            sources = self.trace[None, :, None, begin:end, None].long() - 1
            for block in self.slab.blocks:
                part = block[:, :, :, begin:end]
                part.copy_(part.gather(1, sources.expand(part.shape)))
        self.traced = False
        self.trace.copy_(self.own_rows)


class Captured:
    """One captured forward: static input, graph, static output, and the logits."""

    def __init__(self, tokens: Tensor, graph: torch.cuda.CUDAGraph, outputs: Any, logits: Tensor) -> None:
        self.tokens, self.graph, self.outputs, self.logits = tokens, graph, outputs, logits


class Stock:
    """The idle workbenches of one model."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mark: Any = None
        self.idle: list[Workbench] = []

    def take(self, mark: Any, rows: int, capacity: int) -> Workbench | None:
        """An idle workbench that fits, if there is one; forgets all if the model has changed."""
        with self.lock:
            if mark != self.mark:
                self.mark, self.idle = mark, []
            for bench in self.idle:
                if bench.rows == rows and bench.capacity >= capacity:
                    self.idle.remove(bench)
                    return bench
        return None

    def give(self, mark: Any, bench: Workbench) -> None:
        """Keep a workbench for the next call."""
        with self.lock:
            if mark == self.mark:
                self.idle.append(bench)
                del self.idle[:-KEPT]

    def clear(self) -> None:
        """Free everything."""
        with self.lock:
            self.idle = []


_stocks: weakref.WeakKeyDictionary[Any, Stock] = weakref.WeakKeyDictionary()
_stocks_lock = threading.Lock()


def stock_of(model: Any) -> Stock:
    """The stock that is kept with the model."""
    with _stocks_lock:
        return _stocks.setdefault(model, Stock())


def fingerprint(model: Any, compiled: bool) -> tuple[Any, ...]:
    """What captured forwards of the model depend on, besides the values of its weights."""
    tensors = tuple((t.data_ptr(), t.dtype) for group in (model.parameters(), model.buffers()) for t in group)
    modules = tuple(
        (
            type(m),
            m.training,
            id(m.__dict__.get("forward")),
            m.__dict__.get("_disable_adapters"),
            str(m.__dict__.get("_active_adapter")),
        )
        for m in model.modules()
    )
    return (hash(tensors), hash(modules), seam.attention_name(model), compiled)
