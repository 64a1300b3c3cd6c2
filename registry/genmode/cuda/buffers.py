"""What captured forwards work on, and where it is kept between calls.

Static buffers are a cache and the static tensors that captured forwards read and write. They belong to one model, number
of rows and capacity, and are kept with the model for the next call of that shape.

A captured forward reads weights where they were. `fingerprint` notes where that is and which modules would run; a model
that was moved, resized, quantised, adapted or hooked since gets new static buffers.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor

from ..engines.static_cache import StaticRowCache
from ..hf import attention
from .kernels.build import PARENT_ROWS
from .replay import Replays, mark_static

KEPT = 4
"""Idle static buffers kept with one model; the one used longest ago goes first."""


class StaticBuffers:
    """A cache with static tensors for `rows` rows of up to `capacity` tokens, and the graphs that use them."""

    def __init__(self, layers: int, rows: int, capacity: int, device: torch.device) -> None:
        self.rows, self.capacity = rows, capacity
        self.cache = StaticRowCache(layers, rows, capacity)
        self.cache.row_index = torch.arange(rows, device=device)[:, None]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.shift = torch.zeros(rows, dtype=torch.long, device=device)
        self.last = torch.zeros((), dtype=torch.long, device=device)
        self.columns = torch.arange(capacity, device=device)
        self.visible = torch.ones(rows, capacity, dtype=torch.bool, device=device)
        self.own_rows = torch.arange(1, rows + 1, device=device)[:, None]
        self.parent_rows = torch.empty(rows, capacity, dtype=PARENT_ROWS, device=device)
        """One more than the row in whose slot each key of a row lies; one's own row from the end on."""
        self.has_parents = False
        """Whether some keys lie elsewhere than in their own row."""
        self.trees: dict[int, tuple[Tensor, Tensor]] = {}
        """What the tokens of drafted trees see of each other and how far ahead they lie, by their number."""
        self.graphs: dict[tuple[Any, ...], Captured] = {}
        self.graph_memory: Any = None
        self.replays = Replays()
        self.logits: Tensor | None = None
        """Where the logits `[rows, vocab]` of every step lie, so that recorded functions find them there."""
        self.float_logits: Tensor | None = None
        """The same in float32, for steps that ask for them."""

    def store_logits(self, logits: Tensor) -> Tensor:
        """Put logits `[rows, vocab]` where those of every step lie."""
        if self.logits is None:
            self.logits = mark_static(torch.empty_like(logits))
        return self.logits.copy_(logits)

    def materialize(self, begin: int, end: int) -> None:
        """Copy keys and values of columns `[begin, end)` into the slots of their own rows."""
        if self.has_parents:
            sources = self.parent_rows[None, :, None, begin:end, None].long() - 1
            for block in self.cache.blocks:
                part = block[:, :, :, begin:end]
                part.copy_(part.gather(1, sources.expand(part.shape)))
        self.has_parents = False
        self.parent_rows.copy_(self.own_rows)


class Captured:
    """One captured forward: static input, graph, static output, and the logits."""

    def __init__(self, tokens: Tensor, graph: torch.cuda.CUDAGraph, outputs: Any, logits: Tensor) -> None:
        self.tokens, self.graph, self.outputs, self.logits = tokens, graph, outputs, logits


class BufferPool:
    """The idle static buffers of one model."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mark: Any = None
        self.idle: list[StaticBuffers] = []

    def take(self, mark: Any, rows: int, capacity: int) -> StaticBuffers | None:
        """Idle static buffers that fit, if there are any; forgets all if the model has changed."""
        with self.lock:
            if mark != self.mark:
                self.mark, self.idle = mark, []
            for buffers in self.idle:
                if buffers.rows == rows and buffers.capacity >= capacity:
                    self.idle.remove(buffers)
                    return buffers
        return None

    def give(self, mark: Any, buffers: StaticBuffers) -> None:
        """Keep static buffers for the next call."""
        with self.lock:
            if mark == self.mark:
                self.idle.append(buffers)
                del self.idle[:-KEPT]

    def clear(self) -> None:
        """Free everything."""
        with self.lock:
            self.idle = []


_pools: weakref.WeakKeyDictionary[Any, BufferPool] = weakref.WeakKeyDictionary()
_pools_lock = threading.Lock()


def buffer_pool_of(model: Any) -> BufferPool:
    """The pool that is kept with the model."""
    with _pools_lock:
        return _pools.setdefault(model, BufferPool())


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
    return (hash(tensors), hash(modules), attention.attention_name(model), compiled)
