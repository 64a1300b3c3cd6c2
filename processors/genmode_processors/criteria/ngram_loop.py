"""Stop in a loop: a row is done when its output ends in the same n-gram several times over.

With p the period, k the repeats and L the row's length, a row loops if for some p from 1 to the largest

    x[i] = x[i + p]  for all i from L - p k to L - p - 1

and all of these tokens lie behind the prompt. The periods are compared at once, in one comparison of
`[rows, periods, periods * (repeats - 1)]`, so a step costs the same at any length. Everything is read off the
history, so beams and drafting need no state.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from pydantic import Field

import genmode

from ..begun import Begun

if TYPE_CHECKING:
    from torch import Tensor


class NgramLoop(genmode.StoppingCriterion):
    """Stop in a loop; reads the last tokens alone."""

    contract_version = 1
    name = "ngram_loop"

    class Params(genmode.Params):
        ngram_loop_size: int = Field(16, ge=1, description="longest n-gram that counts as a loop, in tokens")
        ngram_loop_repeats: int = Field(4, ge=2, description="so many times in a row it stops")

    _room: Begun[int] = Begun()  # tokens that a row may decode

    def begin(self, context: genmode.Context) -> None:
        self._room = context.max_length - context.prompt_length

    def reset(self) -> None:
        self._room = None

    def check(self, history: genmode.History) -> Tensor:
        repeats: int = min(self.params.ngram_loop_repeats, self._room + 1)  # more never come
        size: int = max(1, min(self.params.ngram_loop_size, self._room // repeats))
        back = history.tail(size * repeats).flip(1)  # [rows, size * repeats], last token first
        earlier, beyond, least = compared(size, repeats, back.device)
        same = back[:, None, : earlier.shape[1]] == back[:, earlier]  # [rows, periods, count]
        enough = least <= (history.lengths - history.prompt)[:, None]  # [rows, periods]
        return ((same | beyond).all(2) & enough).any(1)


@functools.lru_cache(maxsize=8)
def compared(size: int, repeats: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Which places, counted from a row's end, are compared for each period from 1 to `size`.

    Returns:
        With which place, one period further back, each place is compared, `[periods, size * (repeats - 1)]`, long; which
        of these are beyond what the period asks for, bool; and how many tokens it asks for, `[periods]`.
    """
    period = torch.arange(1, size + 1, device=device)
    at = torch.arange(size * (repeats - 1), device=device)
    earlier = (at + period[:, None]).clamp_(max=size * repeats - 1)
    return earlier, at >= period[:, None] * (repeats - 1), period * repeats
