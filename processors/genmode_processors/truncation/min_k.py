"""Min-k: cut at the steepest relative drop of the sorted scores.

    s_1 >= s_2 >= ... >= s_n,   R = s_1 - s_n,   w_i = (s_i - s_{i+1}) / R / i
    keep the max(argmax_i w_i, floor(tau / R)) best tokens

Source: Ding et al., "Min-k sampling: decoupling truncation from temperature scaling via relative logit
dynamics", ACL 2026, arXiv:2604.11012. The cliff does not depend on the temperature; the second term, for
rows that are nearly flat, does. Masked tokens do not count, neither in n nor in R. Ties: tokens as good as
the last kept one stay; of equal w the first counts. A row of equal scores keeps them all.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, ascending

from .base import Truncation, without

_CLOSE = 2.0**-18


class MinK(Truncation):
    """Keeps the tokens before the cliff of each row."""

    contract_version = 1
    name = "min_k"
    paper = "Ding et al., Min-k sampling, ACL 2026, arXiv:2604.11012"

    class Params(genmode.Params):
        min_k_tau: float = Field(
            3.0, ge=0, description="how many tokens a nearly flat row keeps, times the range of its scores"
        )

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        ordered = ascending(scores).flip(-1)  # [rows, vocab] descending
        drops, least = self._drops(ordered)
        count = torch.maximum(drops.argmax(-1, keepdim=True), least.floor().long() - 1)
        return without(scores, scores < ordered.gather(-1, count))

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        candidates = candidates.settled()
        ordered = candidates.scores.sort(-1, descending=True).values
        drops, least = self._drops(ordered)
        steepest, place = drops.max(-1, keepdim=True)
        keep = candidates.scores >= ordered.gather(-1, torch.maximum(place, least.floor().long() - 1))
        if not candidates.checked:
            return candidates.cut(keep)
        rival = (drops >= steepest * (1 - _CLOSE)).sum(-1) > 1
        edge = ((least * (1 - _CLOSE)).floor() != (least * (1 + _CLOSE)).floor())[:, 0]
        return candidates.cut(keep).unless(rival | edge)

    def _drops(self, ordered: Tensor) -> tuple[Tensor, Tensor]:
        """w of each token, `[rows, k]`, and the least number of tokens to keep, `[rows, 1]`, at most k.

        w is 0 for the last unmasked token and for masked ones.
        """
        seen = ordered > -torch.inf
        lowest = ordered.masked_fill(~seen, torch.inf).amin(-1, keepdim=True)
        whole = ordered[:, :1] - lowest
        flat = ~(whole > 0)
        below = torch.nn.functional.pad(ordered[:, 1:], (0, 1), value=-torch.inf)
        drops = (ordered - torch.maximum(below, lowest)).masked_fill_(~seen, 0)
        places = torch.arange(1, ordered.shape[-1] + 1, device=ordered.device)
        drops = drops / whole.masked_fill(flat, 1) / places
        least = self.params.min_k_tau / whole.masked_fill(flat, 1)
        return drops, least.masked_fill(flat, ordered.shape[-1]).clamp(max=ordered.shape[-1])
