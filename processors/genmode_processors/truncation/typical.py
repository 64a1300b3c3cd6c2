"""Locally typical sampling: keep the tokens whose surprise is closest to the row's entropy.

    d_i = | -log p_i - H |,   keep i  if  the probabilities of the tokens with smaller d sum to less than p

Source: Meister, Pimentel, Wiher and Cotterell, "Locally typical sampling", TACL 2023, arXiv:2202.00666; as
transformers' TypicalLogitsWarper. The best token may go. Ties: tokens at the same distance share their
fate. A row whose every token is masked stays as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, order_of, precise

from .base import Truncation, adopted, entropy_of, without


class TypicalP(Truncation, genmode.StandIn):
    """Keeps the typical set of each row."""

    contract_version = 1
    name = "typical_p"
    paper = "Meister et al., Locally typical sampling, TACL 2023, arXiv:2202.00666"
    replaces = ("TypicalLogitsWarper",)

    class Params(genmode.Params):
        typical_p: float = Field(
            1.0,
            gt=0,
            le=1,
            description="probability that the kept tokens, the most typical first, must reach; 1 keeps all",
        )

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> TypicalP | None:
        """The equal of a `TypicalLogitsWarper`."""
        return adopted(cls, theirs, typical_p=theirs.mass)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if self.params.typical_p == 1:
            return scores
        logs = scores.log_softmax(-1)
        entropy = -(logs * logs.exp()).nansum(-1, keepdim=True)
        distance = (-logs).sub_(entropy).abs_()
        order = order_of(distance)
        reached = scores.gather(-1, order).softmax(-1).cumsum(-1)
        last = (reached < self.params.typical_p).sum(-1, keepdim=True).clamp_(max=scores.shape[-1] - 1)
        dropped = distance > distance.gather(-1, order.gather(-1, last))
        if self.min_tokens_to_keep > 1:
            dropped.scatter_(-1, order[:, : self.min_tokens_to_keep], False)
        return without(scores, dropped)

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if self.params.typical_p == 1:
            return candidates
        candidates = candidates.settled()
        logs = precise(candidates.scores).log_softmax(-1)
        shares = logs.exp()
        entropy = entropy_of(shares)
        distance = (logs + entropy).abs_()  # [rows, k], infinite where dropped
        ordered, order = distance.sort(-1)
        sums = torch.nn.functional.pad(shares.gather(-1, order).cumsum(-1), (1, 0))

        def before(limit: Tensor, right: bool = False) -> Tensor:
            """The probabilities of the tokens at distances below `limit`, or at it if `right`."""
            return sums.gather(-1, torch.searchsorted(ordered, limit, right=right))

        if not candidates.checked:
            kept = before(distance) < self.params.typical_p
            return candidates.cut(kept.scatter_(-1, order[:, : self.min_tokens_to_keep], True))
        # a token is in doubt if one so near in distance that it may come before or after would change the sum
        error = candidates.error(shares)
        blur = (2 + entropy) * error
        kept = before(distance - blur) - error < self.params.typical_p
        sure = before(distance + blur, right=True) - shares + error < self.params.typical_p
        few = (kept & sure & candidates.alive).sum(-1) < self.min_tokens_to_keep
        narrowed = candidates.cut(kept, kept & ~sure)
        return narrowed.unless(few) if self.min_tokens_to_keep > 1 else narrowed
