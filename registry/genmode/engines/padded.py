"""An engine with more rows than the session: captured forwards are made for few numbers of rows, and the rest idle.

Idle rows do what the first row does, and nothing that is said of them is handed on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .engine import Engine, TreeForm
from .outputs import pick_outputs


def captured_width(rows: int) -> int:
    """The number of rows that a forward is captured for: the next power of two."""
    return 1 << (rows - 1).bit_length()


class PaddedRows:
    """See `genmode.engines.engine.Engine`. All that is not about rows is the engine's own.

    Args:
        engine: of as many rows as there are and idle ones behind them, each of which holds what the first holds.
        rows: how many are the session's.
        width: how many the engine has.
        device: where the rows are.
    """

    def __init__(self, engine: Engine, rows: int, width: int, device: torch.device) -> None:
        self.engine, self.rows = engine, rows
        self.source = torch.cat(
            [torch.arange(rows, device=device), torch.zeros(width - rows, dtype=torch.long, device=device)]
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.engine.forward(tokens.index_select(0, self.source))[: self.rows]

    def tree(self, tokens: Tensor, form: TreeForm) -> Tensor:
        return self.engine.tree(tokens.index_select(0, self.source), form.select(self.source))[: self.rows]

    def keep(self, path: Tensor, counts: Tensor) -> None:
        self.engine.keep(path.index_select(0, self.source), counts.index_select(0, self.source))

    def look(self, tokens: Tensor, one_by_one: bool) -> tuple[Tensor, Tensor | None]:
        return self._own(self.engine.look(tokens.index_select(0, self.source), one_by_one))

    def probe(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._own(self.engine.probe(tokens.index_select(0, self.source)))

    def refeed(self, tokens: Tensor) -> None:
        self.engine.refeed(tokens.index_select(0, self.source))

    def take(self, chosen: Tensor) -> None:
        self.engine.take(chosen.index_select(0, self.source))

    def rewind(self, counts: Tensor | int) -> None:
        self.engine.rewind(counts if isinstance(counts, int) else counts.index_select(0, self.source))

    def select(self, rows: Tensor, within: bool) -> None:
        """As many rows as before."""
        self.engine.select(rows.index_select(0, self.source), within)

    def cache(self) -> Any:
        """That of the session's rows."""
        cache = self.engine.cache()
        if cache is not None:
            cache.batch_select_indices(self.source[: self.rows])
        return cache

    @property
    def outputs(self) -> Any:
        """What the model returned of the session's rows."""
        return pick_outputs(self.engine.outputs, self.source[: self.rows])

    def _own(self, found: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        logits, hidden = found
        return logits[: self.rows], None if hidden is None else hidden[: self.rows]
