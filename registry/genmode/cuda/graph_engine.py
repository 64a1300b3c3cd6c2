"""Captured forwards: the static engine on CUDA, where a step costs the host one launch.

Each call takes static buffers, see there. Within them there is one CUDA graph for each (tokens a row, columns seen, padded),
captured when first needed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..engines.engine import TreeForm
from ..engines.outputs import last_hidden
from ..engines.static_cache import StaticRowCache
from ..engines.static_engine import StaticEngine, tree_mask
from ..hf import generate
from . import packed_attention
from .buffers import Captured, StaticBuffers, buffer_pool_of, fingerprint
from .kernels import build as kernels
from .prepare import build_ahead
from .replay import capturing, is_static, mark_static

FIRST = 512
"""Columns that the first graph of static buffers sees; each further one sees twice as many."""
BLOCK = 64
"""Capacities are rounded up to a multiple of this."""
SPARE = 64
"""Room for drafts behind the longest result."""


def obstacle(model: Any, device: torch.device, attentions: bool) -> str | None:
    """Why the model's forward cannot be captured; None if it may be tried."""
    if device.type != "cuda":
        return f"graphs are for CUDA, and the model is on {device.type}"
    if device.index != torch.cuda.current_device():
        return f"graphs are for the device of the call's own model, and this one is on {device}"
    if attentions:
        return "output_attentions keeps what graphs overwrite"
    if model.training:
        return "the model is in training mode"
    for module in model.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            # transformers' own hooks only pick up hidden states, which a capture keeps
            if not (getattr(hook, "__module__", None) or "").startswith("transformers.utils.output_capturing"):
                return "modules have forward hooks, which a replay would not run"
    return None


class GraphEngine(StaticEngine):
    """See `genmode.engines.engine.Engine`. Takes what `StaticEngine` takes.

    Args:
        compiled: have torch.compile optimise the forward before it is captured.
    """

    name = "graph"

    def __init__(
        self, model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any], copies: int, capacity: int,
        compiled: bool,
    ) -> None:  # fmt: skip
        self.compiled = compiled
        self.replays = True
        self.note = ""
        self.mark = fingerprint(model, compiled)
        self.buffer_pool = buffer_pool_of(model)
        capacity = -(-(capacity + SPARE) // BLOCK) * BLOCK
        super().__init__(model, input_ids, config, kwargs, copies, capacity)
        build_ahead(model, config, self.rows, min(FIRST, capacity))

    def _make_cache(self, layers: int, capacity: int) -> StaticRowCache:
        device = self.ids.device
        buffers = self.buffer_pool.take(self.mark, self.rows, capacity)
        self.buffers: StaticBuffers | None = buffers or StaticBuffers(layers, self.rows, capacity, device)
        return self.buffers.cache

    def _set_layout(self) -> None:
        super()._set_layout()
        self._load()

    def _load(self) -> None:
        """Write this call's layout where captured forwards read it."""
        buffers = self.buffers
        if buffers is None:
            return
        buffers.has_parents = False
        buffers.materialize(0, 0)
        buffers.shift.copy_(self.shift.expand(self.rows))
        buffers.last.fill_(self.last)
        buffers.visible.fill_(True)
        if self.visible is not None:
            buffers.visible[:, : self.visible.shape[1]] = self.visible

    def prefill(self) -> Tensor:
        logits = super().prefill()
        if self.buffers is None:
            return logits
        self.buffers.lengths.fill_(self.prompt)
        return self.buffers.store_logits(logits)

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        if self.buffers is not None and self.bound + count > self.buffers.capacity:
            self._enlarge(self.bound + count)
        if self.buffers is None:
            return super().forward(tokens)
        captured = self._captured(tokens, "forward")
        if captured is None:
            return super().forward(tokens)
        captured.tokens.copy_(tokens)
        captured.graph.replay()
        self.bound += count
        if self.length is not None:
            self.length += count
        self.outputs = captured.outputs
        return captured.logits

    def look(self, tokens: Tensor, one_by_one: bool) -> tuple[Tensor, Tensor | None]:
        """Captured when all candidates go in one forward."""
        self._materialize()
        count = tokens.shape[1]
        if self.buffers is not None and self.bound + count > self.buffers.capacity:
            self._enlarge(self.bound + count)
        captured = None
        if self.buffers is not None and not one_by_one:
            captured = self._captured(tokens, "look")
        if captured is None:
            return super().look(tokens, one_by_one)
        captured.tokens.copy_(tokens)
        captured.graph.replay()
        self.outputs = captured.outputs
        return self.outputs.logits, last_hidden(self.outputs)

    def tree(self, tokens: Tensor, form: TreeForm) -> Tensor:
        """Captured for each number of nodes; the trees' form is copied to where the capture reads it."""
        self._materialize()
        count = tokens.shape[1]
        if self.buffers is not None and self.bound + count > self.buffers.capacity:
            self._enlarge(self.bound + count)
        buffers = self.buffers
        if buffers is None:
            return super().tree(tokens, form)
        seen, ahead = buffers.trees.setdefault(count, (form.seen(), form.ahead()))
        seen.copy_(form.seen())
        ahead.copy_(form.ahead())
        captured = self._captured(tokens, "tree")
        if captured is None:
            return super().tree(tokens, form)
        captured.tokens.copy_(tokens)
        captured.graph.replay()
        self._nodes = count - 1
        self.bound += count
        if self.length is not None:
            self.length += count
        self.outputs = captured.outputs
        return captured.logits

    def probe(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Captured as a forward that leaves the lengths alone, so there is nothing to take back."""
        self._materialize()
        count = tokens.shape[1]
        if self.buffers is not None and self.bound + count > self.buffers.capacity:
            self._enlarge(self.bound + count)
        captured = self._captured(tokens, "probe")
        if captured is None:
            return super().probe(tokens)
        captured.tokens.copy_(tokens)
        captured.graph.replay()
        return captured.logits, last_hidden(captured.outputs)

    def take(self, chosen: Tensor) -> None:
        super().take(chosen)
        if self.buffers is not None and self.length is not None:
            self.buffers.lengths += 1

    def _row_lengths(self) -> Tensor:
        return super()._row_lengths() if self.buffers is None else self.buffers.lengths.clone()

    def _begins(self) -> Tensor:
        return super()._begins() if self.buffers is None else self.buffers.lengths.clone()

    def _lengthen(self, count: int) -> None:
        super()._lengthen(count)
        if self.buffers is not None:
            self.buffers.lengths += count

    def replay(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments) if self.buffers is None else self.buffers.replays(function, *arguments)

    def next_logits(self, logits: Tensor) -> Tensor:
        return mark_static(logits[:, 0]) if is_static(logits) else logits[:, 0]

    def in_float32(self, logits: Tensor) -> Tensor:
        buffers = self.buffers
        if buffers is None:
            return logits.to(torch.float32)
        if buffers.float_logits is None:
            buffers.float_logits = mark_static(torch.empty(logits.shape, device=logits.device))
        return buffers.float_logits.copy_(logits)

    def _captured(self, tokens: Tensor, kind: str) -> Captured | None:
        """The graph for a forward of this shape, captured now if need be."""
        buffers = self.buffers
        if buffers is None:
            return None
        limit = FIRST
        while limit < self.bound + tokens.shape[1]:
            limit *= 2
        level = self.length is not None
        seen = min(limit, buffers.capacity)
        key = (kind, tokens.shape[1], seen, level, buffers.has_parents, self.padded, tuple(sorted(self.extra)))
        return buffers.graphs.get(key) or self._capture(buffers, key, tokens)

    def _body(self, buffers: StaticBuffers, tokens: Tensor, key: tuple[Any, ...], call: Callable[..., Any]) -> Any:
        """One forward at each row's own length; advances the lengths unless it looks at candidates."""
        kind, count, limit, level, has_parents = key[:5]
        slots = buffers.lengths[:, None] + buffers.columns[:count]
        positions = slots
        seen = buffers.columns[:limit]
        mask = seen <= slots[:, None, :, None]
        if kind == "look":
            positions = buffers.lengths[:, None].expand(-1, count)
            mask = (seen < positions[:, None, :, None]) | (seen == slots[:, None, :, None])
        if kind == "tree":
            among, ahead = buffers.trees[count]
            positions = buffers.lengths[:, None] + ahead
            mask = tree_mask(seen, buffers.lengths, among)[:, None]
        if self.padded:
            mask = mask & buffers.visible[:, None, None, :limit]
        if has_parents:
            mask = torch.where(mask, buffers.parent_rows[:, None, None, :limit], 0)
        buffers.cache.put(buffers.cache.start, slots[0] if level else slots)
        buffers.cache.limit = limit
        outputs = call(
            input_ids=tokens, position_ids=torch.minimum(positions, buffers.last) + buffers.shift[:, None],
            attention_mask=self._mask(mask), past_key_values=buffers.cache, use_cache=True, logits_to_keep=count,
            **self.extra,
        )  # fmt: skip
        if kind in ("forward", "tree"):
            buffers.lengths += count
        if kind == "forward" and count == 1:
            buffers.store_logits(outputs.logits[:, 0])
        return outputs

    def _capture(self, buffers: StaticBuffers, key: tuple[Any, ...], tokens: Tensor) -> Captured | None:
        """Capture the forward of this shape; None, with a note, if that fails, and the call goes on without."""
        call = compiled_forward(self.model) if self.compiled else self.model.forward
        static, before = tokens.clone(), buffers.lengths.clone()
        try:
            with capturing, packed_attention.packed(self.model):
                side = kernels.stream("warm-up")
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(3 if self.compiled else 1):
                        self._body(buffers, static, key, call)
                        buffers.lengths.copy_(before)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    graph,
                    pool=buffers.graph_memory,
                    stream=kernels.stream("capture"),
                    capture_error_mode="thread_local",
                ):
                    outputs = self._body(buffers, static, key, call)
        except Exception as error:  # whatever the model's own code raises under capture
            if kernels.give_up(error):
                return self._capture(buffers, key, tokens)
            self.note = f"the forward could not be captured ({type(error).__name__}: {error})"
            self._drop()
            return None
        buffers.graph_memory = buffers.graph_memory or graph.pool()
        logits = outputs.logits
        if key[:2] == ("forward", 1) and buffers.logits is not None:
            logits = mark_static(buffers.logits[:, None])
        buffers.graphs[key] = captured = Captured(static, graph, outputs, logits)
        return captured

    def _can_share_slots(self, buffers: StaticBuffers) -> bool:
        """Whether rows may go on from one another while keys stay where they are."""
        if self.length is None:
            return False
        return buffers.has_parents or packed_attention.reads_parent_rows(self.model, buffers.cache.own[0].keys)

    def _materialize(self) -> None:
        """Where beams have parted, copy what they share into each one's own row."""
        if self.buffers is not None and self.buffers.has_parents:
            self.buffers.materialize(self.prompt, self.bound)

    def _drop(self) -> None:
        """Go on without graphs: the cache stays, eager forwards take over."""
        self._materialize()
        buffers, self.buffers = self.buffers, None
        if buffers is not None:
            buffers.graphs.clear()
            if self.length is None:
                self.lengths = buffers.lengths.clone()
        self.buffer_pool.clear()
        self.name, self.replays = "static", False

    def _enlarge(self, needed: int) -> None:
        """Move to static buffers of at least twice the capacity."""
        old = self.buffers
        if old is None:
            return
        self._materialize()
        capacity = -(-max(needed + SPARE, 2 * old.capacity) // BLOCK) * BLOCK
        buffers = StaticBuffers(len(old.cache.layers), self.rows, capacity, self.ids.device)
        buffers.cache.adopt(old.cache)
        buffers.lengths.copy_(old.lengths)
        if old.logits is not None:
            buffers.store_logits(old.logits)
        self.buffers, self.static_cache = buffers, buffers.cache
        super()._grow(capacity)
        self._load()

    def _resize(self, old: StaticBuffers, rows: Tensor) -> None:
        """Move to static buffers of another number of rows, in which row i is `rows[i]`; the old ones serve later calls."""
        count, capacity = rows.shape[0], old.capacity
        buffers = self.buffer_pool.take(self.mark, count, capacity)
        buffers = buffers or StaticBuffers(len(old.cache.layers), count, capacity, self.ids.device)
        buffers.cache.adopt(old.cache, rows)
        buffers.lengths.copy_(old.lengths.index_select(0, rows))
        self.buffers, self.static_cache = buffers, buffers.cache
        self._select_layout(rows)
        self._load()
        self.buffer_pool.give(self.mark, old)

    def _grow(self, bound: int) -> None:
        if self.buffers is None:
            super()._grow(bound)

    def rewind(self, counts: Tensor | int) -> None:
        if self.buffers is None:
            super().rewind(counts)
            return
        self._materialize()  # other rows may read the slots that are written again
        self.buffers.lengths.sub_(counts)
        if isinstance(counts, int) and self.length is not None:
            self.length -= counts
            self.bound = self.length
        else:
            self.length = None

    def settle(self, length: int) -> None:
        if self.buffers is None:
            super().settle(length)
        else:
            self.length = self.bound = length

    def select(self, rows: Tensor, within: bool) -> None:
        buffers = self.buffers
        if buffers is not None and within and self._can_share_slots(buffers):
            buffers.has_parents = True
            part = buffers.parent_rows[:, self.prompt : self.bound]
            part.copy_(part.index_select(0, rows))
            return
        self._materialize()
        if buffers is not None and rows.shape[0] != self.rows:
            self._resize(buffers, rows)
            return
        super().select(rows, within)
        if buffers is not None:
            if not within:
                self._load()
            if self.length is None:
                buffers.lengths.copy_(buffers.lengths.index_select(0, rows))

    def cache(self) -> Any:
        self._materialize()
        return super().cache()

    def free(self) -> None:
        if self.buffers is not None:
            self.buffers.has_parents = False  # nothing is decoded any more, and copying keys takes memory
        self._drop()

    def close(self) -> None:
        super().close()
        buffers, self.buffers = self.buffers, None
        if buffers is None:
            return
        if generate.tensor_parallel_size(self.model) > 1:
            # NCCL waits for graphs that hold its operations, so that destroy_process_group would never return
            buffers.graphs.clear()
        else:
            self.buffer_pool.give(self.mark, buffers)


def compiled_forward(model: Any) -> Callable[..., Any]:
    """The model's forward through torch.compile, made once for a model."""
    found = _compiled.get(model)
    if found is None:
        # What feeds a matrix-vector product is computed once, not again for every output row.
        options: dict[str, Any] = {"coordinate_descent_tuning": True, "realize_reads_threshold": 1}
        found = _compiled[model] = torch.compile(model.forward, dynamic=False, options=options)
    return found


_compiled: weakref.WeakKeyDictionary[Any, Callable[..., Any]] = weakref.WeakKeyDictionary()
