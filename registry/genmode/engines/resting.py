"""An engine in which some rows rest: those that have ended leave the forward, and what is said of them is 0.

A forward of fewer rows is a cheaper one, where the model's arithmetic and not its weights take the time, as on a CPU.
Moving the others together costs a copy of their cache, so it is done when at most half of the rows go on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .engine import Engine, TreeForm


class RestingRows:
    """See `genmode.engines.engine.Engine`. All that is not about rows is the engine's own.

    Args:
        engine: with a cache of every row.
        running: `[n]`, long, ascending: the rows that go on.
        rows: how many there are.
    """

    def __init__(self, engine: Engine, running: Tensor, rows: int) -> None:
        engine.select(running, False)
        self.engine, self.running, self.rows = engine, running, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def forward(self, tokens: Tensor) -> Tensor:
        return self._spread(self.engine.forward(tokens.index_select(0, self.running)))

    def tree(self, tokens: Tensor, form: TreeForm) -> Tensor:
        return self._spread(self.engine.tree(tokens.index_select(0, self.running), form.select(self.running)))

    def keep(self, path: Tensor, counts: Tensor) -> None:
        self.engine.keep(path.index_select(0, self.running), counts.index_select(0, self.running))

    def look(self, tokens: Tensor, one_by_one: bool) -> tuple[Tensor, Tensor | None]:
        logits, hidden = self.engine.look(tokens.index_select(0, self.running), one_by_one)
        return self._spread(logits), None if hidden is None else self._spread(hidden)

    def probe(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, hidden = self.engine.probe(tokens.index_select(0, self.running))
        return self._spread(logits), None if hidden is None else self._spread(hidden)

    def refeed(self, tokens: Tensor) -> None:
        self.engine.refeed(tokens.index_select(0, self.running))

    def take(self, chosen: Tensor) -> None:
        self.engine.take(chosen.index_select(0, self.running))

    def rewind(self, counts: Tensor | int) -> None:
        self.engine.rewind(counts if isinstance(counts, int) else counts.index_select(0, self.running))

    def select(self, rows: Tensor, within: bool) -> None:
        places = torch.full((self.rows,), -1, device=rows.device)
        places[self.running] = torch.arange(len(self.running), device=rows.device)
        sources = places.index_select(0, rows)
        running = (sources >= 0).nonzero()[:, 0]
        self.engine.select(sources[running], within and len(running) == len(self.running))
        self.running, self.rows = running, len(rows)

    def cache(self) -> Any:
        """None: rows that rest have none any more."""
        return None

    def _spread(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.rows, *values.shape[1:]).index_copy_(0, self.running, values)
