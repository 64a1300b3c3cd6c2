"""Captured forwards: the slab engine on CUDA, where a step costs the host one launch.

Each call takes a workbench, see there. Within it there is one CUDA graph for each (tokens a row, columns seen, padded),
captured when first needed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import kernels, seam
from . import attention
from .ahead import build_ahead
from .portable import last_hidden
from .replay import capturing, stay
from .slab import Slab
from .slab_engine import SlabEngine
from .workbench import Captured, Workbench, fingerprint, stock_of

FIRST = 512
"""Columns that the first graph of a workbench sees; each further one sees twice as many."""
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


class GraphEngine(SlabEngine):
    """See `genmode.session.engine.Engine`. Takes what `SlabEngine` takes.

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
        self.stock = stock_of(model)
        capacity = -(-(capacity + SPARE) // BLOCK) * BLOCK
        super().__init__(model, input_ids, config, kwargs, copies, capacity)
        build_ahead(model, config, self.rows, min(FIRST, capacity))

    def _make_slab(self, layers: int, capacity: int) -> Slab:
        device = self.ids.device
        bench = self.stock.take(self.mark, self.rows, capacity)
        self.bench: Workbench | None = bench or Workbench(layers, self.rows, capacity, device)
        return self.bench.slab

    def _set_layout(self) -> None:
        super()._set_layout()
        self._load()

    def _load(self) -> None:
        """Write this call's layout where captured forwards read it."""
        bench = self.bench
        if bench is None:
            return
        bench.traced = False
        bench.straighten(0, 0)
        bench.shift.copy_(self.shift.expand(self.rows))
        bench.last.fill_(self.last)
        bench.visible.fill_(True)
        if self.visible is not None:
            bench.visible[:, : self.visible.shape[1]] = self.visible

    def prefill(self) -> Tensor:
        logits = super().prefill()
        if self.bench is None:
            return logits
        self.bench.lengths.fill_(self.prompt)
        return self.bench.show(logits)

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        if self.bench is not None and self.bound + count > self.bench.capacity:
            self._enlarge(self.bound + count)
        if self.bench is None:
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
        self._straighten()
        count = tokens.shape[1]
        if self.bench is not None and self.bound + count > self.bench.capacity:
            self._enlarge(self.bound + count)
        captured = None
        if self.bench is not None and not one_by_one:
            captured = self._captured(tokens, "look")
        if captured is None:
            return super().look(tokens, one_by_one)
        captured.tokens.copy_(tokens)
        captured.graph.replay()
        self.outputs = captured.outputs
        return self.outputs.logits, last_hidden(self.outputs)

    def take(self, chosen: Tensor) -> None:
        super().take(chosen)
        if self.bench is not None:
            self.bench.lengths += 1

    def replay(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments) if self.bench is None else self.bench.replays(function, *arguments)

    def in_float32(self, logits: Tensor) -> Tensor:
        bench = self.bench
        if bench is None:
            return logits.to(torch.float32)
        if bench.precise is None:
            bench.precise = stay(torch.empty(logits.shape, device=logits.device))
        return bench.precise.copy_(logits)

    def _captured(self, tokens: Tensor, kind: str) -> Captured | None:
        """The graph for a forward of this shape, captured now if need be."""
        bench = self.bench
        if bench is None:
            return None
        limit = FIRST
        while limit < self.bound + tokens.shape[1]:
            limit *= 2
        level = self.length is not None
        seen = min(limit, bench.capacity)
        key = (kind, tokens.shape[1], seen, level, bench.traced, self.padded, tuple(sorted(self.extra)))
        return bench.graphs.get(key) or self._capture(bench, key, tokens)

    def _body(self, bench: Workbench, tokens: Tensor, key: tuple[Any, ...], call: Callable[..., Any]) -> Any:
        """One forward at each row's own length; advances the lengths unless it looks at candidates."""
        kind, count, limit, level, traced = key[:5]
        slots = bench.lengths[:, None] + bench.columns[:count]
        positions = slots
        seen = bench.columns[:limit]
        mask = seen <= slots[:, None, :, None]
        if kind == "look":
            positions = bench.lengths[:, None].expand(-1, count)
            mask = (seen < positions[:, None, :, None]) | (seen == slots[:, None, :, None])
        if self.padded:
            mask = mask & bench.visible[:, None, None, :limit]
        if traced:
            mask = torch.where(mask, bench.trace[:, None, None, :limit], 0)
        bench.slab.put(bench.slab.start, slots[0] if level else slots)
        bench.slab.limit = limit
        outputs = call(
            input_ids=tokens, position_ids=torch.minimum(positions, bench.last) + bench.shift[:, None],
            attention_mask=self._mask(mask), past_key_values=bench.slab, use_cache=True, logits_to_keep=count,
            **self.extra,
        )  # fmt: skip
        if kind != "look":
            bench.lengths += count
        if kind == "forward" and count == 1:
            bench.show(outputs.logits[:, 0])
        return outputs

    def _capture(self, bench: Workbench, key: tuple[Any, ...], tokens: Tensor) -> Captured | None:
        """Capture the forward of this shape; None, with a note, if that fails, and the call goes on without."""
        call = compiled_forward(self.model) if self.compiled else self.model.forward
        static, before = tokens.clone(), bench.lengths.clone()
        try:
            with capturing, attention.packed(self.model):
                side = kernels.stream("warm-up")
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(3 if self.compiled else 1):
                        self._body(bench, static, key, call)
                        bench.lengths.copy_(before)
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    graph, pool=bench.pool, stream=kernels.stream("capture"), capture_error_mode="thread_local"
                ):
                    outputs = self._body(bench, static, key, call)
        except Exception as error:  # whatever the model's own code raises under capture
            if kernels.give_up(error):
                return self._capture(bench, key, tokens)
            self.note = f"the forward could not be captured ({type(error).__name__}: {error})"
            self._drop()
            return None
        bench.pool = bench.pool or graph.pool()
        logits = outputs.logits
        if key[:2] == ("forward", 1) and bench.logits is not None:
            logits = stay(bench.logits[:, None])
        bench.graphs[key] = captured = Captured(static, graph, outputs, logits)
        return captured

    def _can_part(self, bench: Workbench) -> bool:
        """Whether rows may go on from one another while keys stay where they are."""
        if self.length is None:
            return False
        return bench.traced or attention.traces(self.model, bench.slab.own[0].keys)

    def _straighten(self) -> None:
        """Where beams have parted, bring what they share into each one's own row."""
        if self.bench is not None and self.bench.traced:
            self.bench.straighten(self.prompt, self.bound)

    def _drop(self) -> None:
        """Go on without graphs: the slab stays, eager forwards take over."""
        self._straighten()
        bench, self.bench = self.bench, None
        if bench is not None:
            bench.graphs.clear()
            if self.length is None:
                self.lengths = bench.lengths.clone()
        self.stock.clear()
        self.name, self.replays = "slab", False

    def _enlarge(self, needed: int) -> None:
        """Move to a workbench of at least twice the capacity."""
        old = self.bench
        if old is None:
            return
        self._straighten()
        capacity = -(-max(needed + SPARE, 2 * old.capacity) // BLOCK) * BLOCK
        bench = Workbench(len(old.slab.layers), self.rows, capacity, self.ids.device)
        bench.slab.adopt(old.slab)
        bench.lengths.copy_(old.lengths)
        if old.logits is not None:
            bench.show(old.logits)
        self.bench, self.slab = bench, bench.slab
        super()._grow(capacity)
        self._load()

    def _grow(self, bound: int) -> None:
        if self.bench is None:
            super()._grow(bound)

    def rewind(self, counts: Tensor | int) -> None:
        if self.bench is None:
            super().rewind(counts)
            return
        self._straighten()  # other rows may read the slots that are written again
        self.bench.lengths.sub_(counts)
        if isinstance(counts, int) and self.length is not None:
            self.length -= counts
            self.bound = self.length
        else:
            self.length = None

    def settle(self, length: int) -> None:
        if self.bench is None:
            super().settle(length)
        else:
            self.length = self.bound = length

    def select(self, rows: Tensor, within: bool) -> None:
        bench = self.bench
        if bench is not None and within and self._can_part(bench):
            bench.traced = True
            part = bench.trace[:, self.prompt : self.bound]
            part.copy_(part.index_select(0, rows))
            return
        self._straighten()
        if bench is not None and rows.shape[0] != self.rows:
            self._drop()
            bench = None
        super().select(rows, within)
        if bench is not None:
            if not within:
                self._load()
            if self.length is None:
                bench.lengths.copy_(bench.lengths.index_select(0, rows))

    def cache(self) -> Any:
        self._straighten()
        return super().cache()

    def free(self) -> None:
        if self.bench is not None:
            self.bench.traced = False  # nothing is decoded any more, and bringing keys home takes memory
        self._drop()

    def close(self) -> None:
        super().close()
        bench, self.bench = self.bench, None
        if bench is None:
            return
        if seam.tensor_parallel_size(self.model) > 1:
            # NCCL waits for graphs that hold its operations, so that destroy_process_group would never return
            bench.graphs.clear()
        else:
            self.stock.give(self.mark, bench)


def compiled_forward(model: Any) -> Callable[..., Any]:
    """The model's forward through torch.compile, made once for a model."""
    found = _compiled.get(model)
    if found is None:
        # What feeds a matrix-vector product is computed once, not again for every output row.
        options: dict[str, Any] = {"coordinate_descent_tuning": True, "realize_reads_threshold": 1}
        found = _compiled[model] = torch.compile(model.forward, dynamic=False, options=options)
    return found


_compiled: weakref.WeakKeyDictionary[Any, Callable[..., Any]] = weakref.WeakKeyDictionary()
