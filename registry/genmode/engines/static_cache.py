"""A cache whose rows have their own lengths, written in place.

Slot j of a row holds the keys and values of the row's token j, left padding included, so that going back is
a subtraction on lengths and a finished row costs nothing to keep. Left padding stays where the prompt had
it and is hidden by the mask.
"""

# pyright: reportIncompatibleVariableOverride=false
# A layer's keys and values are set before they are read, where transformers allows None.

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache


class StaticRowLayer(CacheLayerMixin):
    """Keys and values of one layer: two views `[rows, heads, capacity, width]` into the cache."""

    is_compileable = False
    is_sliding = False

    def __init__(self, cache: StaticRowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = weakref.ref(cache)  # the cache holds its layers: no cycle may keep the memory
        self.keys: Tensor
        self.values: Tensor
        self.place = 0
        """How many views had been taken of the cache before this layer's."""

    @property
    def cache(self) -> StaticRowCache:
        """The cache that this layer is part of."""
        cache = self._cache()
        if cache is None:
            raise RuntimeError("a layer was used after its cache was freed")
        return cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take storage of the shape `[rows, heads, *, width]` of these states."""
        self.place = self.cache.taken
        self.keys, self.values = self.cache.allocate(key_states), self.cache.allocate(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the states of this forward; return all that it may see, `[rows, heads, limit, width]`."""
        cache = self.cache
        if cache.written is not None:
            place = self.place
            cache.written[place].copy_(key_states)
            cache.written[place + 1].copy_(value_states)
            return cache.seen[place], cache.seen[place + 1]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if cache.slots is None:
            count = key_states.shape[2]
            keys, values = self.keys, self.values
            if cache.stride > 1:
                keys, values = keys[:: cache.stride], values[:: cache.stride]
            keys.narrow(2, cache.start, count).copy_(key_states)
            values.narrow(2, cache.start, count).copy_(value_states)
            if cache.stride > 1 and cache.start == 0:
                return key_states, value_states  # the same, laid out as the model made them: some views need that
            return keys.narrow(2, 0, cache.start + count), values.narrow(2, 0, cache.start + count)
        if cache.slots.dim() == 1:  # the same slots in every row
            self.keys.index_copy_(2, cache.slots, key_states)
            self.values.index_copy_(2, cache.slots, value_states)
            return self.keys[:, :, : cache.limit], self.values[:, :, : cache.limit]
        # Indexed by [rows, 1] and [rows, tokens], the middle axis (heads) comes last: [rows, tokens, heads, width].
        self.keys[cache.row_index, :, cache.slots] = key_states.transpose(1, 2)
        self.values[cache.row_index, :, cache.slots] = value_states.transpose(1, 2)
        return self.keys[:, :, : cache.limit], self.values[:, :, : cache.limit]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a forward of `query_length` tokens sees."""
        return self.cache.start + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens before this forward."""
        return self.cache.start

    def get_max_length(self) -> int:
        """No limit: the cache grows."""
        return -1

    def get_max_cache_shape(self) -> int:
        """The same by the name that older models ask for."""
        return -1


class StaticRowCache(Cache):
    """All layers' keys and values, of one dtype and device, in blocks that grow together.

    Attributes:
        start: length that all rows share before the forward, for contiguous writes.
        slots: `[rows, tokens]`, long: where each new token goes; `[tokens]` if in every row alike; None to
            write behind `start`.
        limit: columns that a forward with `slots` sees.
        stride: a forward without `slots` runs every `stride`-th row; see `spread`.
        written, seen: what the next forward writes and sees of each view; None where it is cut out layer by layer.
    """

    def __init__(self, layers: int, rows: int, capacity: int) -> None:
        self.own = [StaticRowLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self.own))
        self.rows, self.capacity, self.stride = rows, capacity, 1
        self.start = 0
        self.slots: Tensor | None = None
        self.row_index: Tensor | None = None
        self.limit = 0
        self.written: tuple[Tensor, ...] | None = None
        self.seen: tuple[Tensor, ...] = ()
        self.taken = 0
        self.blocks: list[Tensor] = []
        self._free: list[Tensor] = []

    def allocate(self, states: Tensor) -> Tensor:
        """A view `[rows, heads, capacity, width]` for states of that shape, from a shared block if it fits.

        Layers of one shape share one block `[2 * layers, rows, heads, capacity, width]`, so that reordering
        rows is one operation. Memory is zeroed: hidden slots enter attention with weight zero, and zero
        times an undefined number may be no number.
        """
        self.taken += 1
        _, heads, _, width = states.shape
        shape = (self.rows, heads, self.capacity, width)
        for index, view in enumerate(self._free):
            if tuple(view.shape) == shape and view.dtype == states.dtype:
                return self._free.pop(index)
        count = 2 * sum(not layer.is_initialized for layer in self.own)
        block = states.new_zeros((count, *shape))
        self.blocks.append(block)
        self._free = list(block[1:])
        return block[0]

    def open(self, start: int, count: int) -> None:
        """The next forward writes `count` tokens behind `start` in every row.

        What it writes and sees is cut out of the block for all layers at once, since the host pays for each cut.
        """
        self.put(start, None)
        if len(self.blocks) == 1 and not self._free:
            block = self.blocks[0]
            self.written = block.narrow(3, start, count).unbind(0)
            self.seen = block.narrow(3, 0, start + count).unbind(0)

    def put(self, start: int, slots: Tensor | None) -> None:
        """The next forward writes behind `start`, or into `slots`."""
        self.start, self.slots, self.written = start, slots, None

    def spread(self, copies: int, end: int) -> None:
        """Give columns `[0, end)` of every `copies`-th row to the rows behind it."""
        for block in self.blocks:
            groups = block.unflatten(1, (-1, copies))
            groups[:, :, 1:, :, :end] = groups[:, :, :1, :, :end]

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` tokens a row."""
        if capacity <= self.capacity:
            return
        capacity = max(capacity, self.capacity + self.capacity // 2)

        def larger(block: Tensor) -> Tensor:
            grown = block.new_zeros((*block.shape[:3], capacity, block.shape[4]))
            grown[:, :, :, : self.capacity] = block
            return grown

        self._rebuild(larger)
        self.capacity = capacity

    def adopt(self, other: StaticRowCache, rows: Tensor | None = None) -> None:
        """Take the contents of another cache of the same model: all its rows, or row `rows[i]` in place of row i."""
        width = min(self.capacity, other.capacity)
        for mine, theirs in zip(self.own, other.own, strict=True):
            if theirs.is_initialized:
                if not mine.is_initialized:
                    mine.lazy_initialization(theirs.keys, theirs.values)
                for own, their in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
                    part = their[:, :, :width]
                    own[:, :, :width] = part if rows is None else part.index_select(0, rows)

    def select(self, rows: Tensor, begin: int, end: int) -> None:
        """Row i continues row `rows[i]`; only columns `[begin, end)` differ between the two."""
        if rows.shape[0] != self.rows:
            self._rebuild(lambda block: block.index_select(1, rows))
            self.rows = rows.shape[0]
            return
        for block in self.blocks:
            part = block[:, :, :, begin:end]
            part.copy_(part.index_select(1, rows))

    def move(self, sources: Tensor, target: Tensor | int) -> None:
        """Each row's slot `sources[i]` is copied to slot `target`, or its own of them; both are `[rows]`, long."""
        index = sources[None, :, None, None, None]
        for block in self.blocks:
            if isinstance(target, Tensor):
                shape = (*block.shape[:3], 1, block.shape[4])
                block.scatter_(3, target[None, :, None, None, None].expand(shape), block.gather(3, index.expand(shape)))
                continue
            one = block.narrow(3, target, 1)
            one.copy_(block.gather(3, index.expand(one.shape)))

    def gather(self, sources: Tensor, target: Tensor | int) -> None:
        """Each row's slots `sources` `[rows, m]` are copied to those from `target` on, or from its own of them, `[rows]`."""
        count = sources.shape[1]
        index = sources[None, :, None, :, None]
        for block in self.blocks:
            shape = (*block.shape[:3], count, block.shape[4])
            found = block.gather(3, index.expand(shape))
            if isinstance(target, Tensor):
                places = target[:, None] + torch.arange(count, device=target.device)
                block.scatter_(3, places[None, :, None, :, None].expand(shape), found)
            else:
                block.narrow(3, target, count).copy_(found)

    def _rebuild(self, change: Callable[[Tensor], Tensor]) -> None:
        views: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            new = change(block)
            for old_view, new_view in zip(block, new, strict=True):
                views[old_view.data_ptr()] = new_view
            self.blocks[index] = new
        for layer in self.own:
            if layer.is_initialized:
                layer.keys, layer.values = views[layer.keys.data_ptr()], views[layer.values.data_ptr()]
        self._free = [views[view.data_ptr()] for view in self._free]

    def export(self, length: int) -> Cache:
        """A plain transformers cache with the first `length` tokens of every row, sharing no storage."""
        cache = DynamicCache()
        for index, layer in enumerate(self.own):
            if layer.is_initialized:
                cache.update(layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone(), index)
        return cache
