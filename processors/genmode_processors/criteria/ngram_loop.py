"""Stop in a loop: a row is done when its output ends in the same n-gram several times over.

With p the period, k the repeats and L the row's length, a row loops if for some p from 1 to the largest

    x[i] = x[i + p]  for all i from L - p k to L - p - 1

and all of these tokens lie behind the prompt. The periods are compared at once, in one comparison of
`[rows, periods, periods * (repeats - 1)]`, so a step costs the same at any length. Everything is read off the
history, so beams and drafting need no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field

import genmode

from ..rows import lengths, tail

if TYPE_CHECKING:
    from torch import Tensor


class NgramLoop(genmode.StoppingCriterion):
    """Stop in a loop; reads the last tokens alone."""

    contract_version = 1
    name = "ngram_loop"

    class Params(genmode.Params):
        ngram_loop_size: int = Field(16, ge=1, description="longest n-gram that counts as a loop, in tokens")
        ngram_loop_repeats: int = Field(4, ge=2, description="so many times in a row it stops")

    def check(self, history: genmode.History) -> Tensor:
        size: int = self.params.ngram_loop_size
        repeats: int = self.params.ngram_loop_repeats
        device = history.tokens.device
        back = tail(history, size * repeats).flip(1)  # [rows, size * repeats], last token first
        period = torch.arange(1, size + 1, device=device)
        at = torch.arange(size * (repeats - 1), device=device)
        needed = at < period[:, None] * (repeats - 1)  # [periods, count]
        earlier = (at + period[:, None]).clamp_(max=size * repeats - 1)
        same = back[:, None, : len(at)] == back[:, earlier]  # [rows, periods, count]
        enough = period * repeats <= lengths(history) - history.prompt  # [rows, periods]
        return ((same | ~needed).all(2) & enough).any(1)
