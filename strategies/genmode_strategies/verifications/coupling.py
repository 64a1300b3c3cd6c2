"""Coupling: each position is drawn whatever the draft says there, and the row takes what agrees.

    c_i ~ p_i for every position, taken: c_1 .. c_m+1 with m the largest number for which x_1 .. x_m = c_1 .. c_m

So text is distributed as that of sampling for any draft, and under `seed=`, where a draw is a function of the row and its
position, its tokens are those of sampling without drafts. A drafter that draws does so with the same random numbers
(`Session.draft_scorer(share_randomness=True)`): argmax_v p_v / e_v and argmax_v q_v / e_v agree at least as often as
(1 - TV) / (1 + TV), TV being the total variation distance of p and q. With torch's generator such a call gets a seed for
each row from it. Of a draft that draws nothing, a token is taken with probability p(x), as by rejection; with torch's
generator those are the draws of transformers' prompt lookup.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

import genmode

from .residual import at, row_at


class Coupling(genmode.Verification):
    """Takes the draft as far as the row's own draws agree. Shapes: scores `[rows, k + 1, vocab]`, draft `[rows, k]`."""

    contract_version = 1
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.COUPLES, genmode.Trait.KEEPS_DISTRIBUTION})

    def verify(self, session: genmode.Session, step: genmode.Step, draft: genmode.Draft) -> tuple[Tensor, Tensor]:
        chosen, run = step.sample(each=True), step.draft
        if run is None:
            return chosen, torch.zeros_like(chosen[:, 0])
        if draft.counts is not None and session.rows == 1:
            # transformers draws for drafted tokens that the text has no room for as well
            for _ in range(draft.tokens.shape[1] - run.shape[1]):
                session.multinomial(step.logits)
        return chosen, (run == chosen[:, :-1]).long().cumprod(1).sum(1)

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        return at(p, draft)

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        here = row_at(p, taken)
        refused = draft.gather(1, taken.clamp(max=draft.shape[1] - 1)[:, None])
        return torch.where((taken < counts)[:, None], here.scatter(1, refused, 0.0), here)
