"""A processor that takes rows back, by a rule that can be followed by hand."""

from __future__ import annotations

import torch
from torch import Tensor

import genmode

MAX_BACKTRACK = 3


def wish(decoded: list[int]) -> int:
    """Some rule: how many of the last tokens go, at most MAX_BACKTRACK."""
    return 1 + decoded[-1] % MAX_BACKTRACK if len(decoded) > 1 and sum(decoded[-2:]) % 4 == 0 else 0


class Fickle(genmode.BacktrackingProcessor):
    """Takes back what `wish` says, and forbids the first token taken back at its place; reads the host."""

    contract_version = 1
    max_backtrack = MAX_BACKTRACK  # type: ignore[assignment]

    def begin(self, context: genmode.Context) -> None:
        if not context.backtracks:
            raise genmode.ParameterError("fickle takes tokens back, which rows of this strategy cannot")
        self.bans: list[dict[int, set[int]]] = [{} for _ in range(context.rows)]
        self.times = 0

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        for row, length in enumerate(history.lengths.tolist()):
            scores[row, list(self.bans[row].get(length, ()))] = -torch.inf
        return scores

    def backtrack(self, history: genmode.History) -> Tensor:
        ends = history.lengths.tolist()
        return torch.tensor([wish(history.tokens[r, history.prompt : end].tolist()) for r, end in enumerate(ends)])

    def backtracked(self, history: genmode.History, counts: Tensor) -> None:
        for row, (length, count) in enumerate(zip(history.lengths.tolist(), counts.tolist(), strict=True)):
            bans = self.bans[row] = {at: some for at, some in self.bans[row].items() if at <= length}
            if count:
                self.times += 1
                bans.setdefault(length, set()).add(int(history.tokens[row, length]))
