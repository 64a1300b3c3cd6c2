"""The drafting loop: a guess is run in one forward, and every row takes what it would have chosen itself.

    draft d_1 .. d_k -> one forward -> the row's own choices c_1 .. c_k+1, each behind the draft so far
    taken: c_1 .. c_m+1 with m the largest number for which d_1 .. d_m = c_1 .. c_m

Each choice is the argmax, or a draw, of the scores at its position, whatever the draft says there. So the
result is that of greedy search or sampling for any draft: a bad one costs time and changes nothing. Rows take
different numbers of tokens.

Speculative sampling (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192) accepts a draft with
min(1, p / q) instead. Here draft and verification draw with the same random numbers
(`Session.draft_scorer(share_randomness=True)`): argmax_v p_v / e_v and argmax_v q_v / e_v agree at least as often as
(1 - TV) / (1 + TV), TV being the total variation distance of p and q, and under `seed=` the tokens are those of
plain sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

import genmode
from genmode import host_sync


class Drafter(Protocol):
    """Guesses how rows continue."""

    def draft(self) -> Tensor | None:
        """A guess behind what the rows have become: `[rows, k]`, long; None for none."""
        ...

    def learn(self, step: genmode.Step, chosen: Tensor, agreed: Tensor, running: Tensor) -> None:
        """The last guess was verified.

        Args:
            step: committed; `step.draft` `[rows, k]` is what of the guess was run, None if nothing was.
            chosen: `[rows, k + 1]`, long: what the rows chose.
            agreed: `[rows]`, long: how many of the draft's tokens they chose as well.
            running: `[rows]`, bool: rows that were decoded in this step; what is said of others is undefined.
        """
        ...


def decode_with(
    drafter: Drafter | None, session: genmode.Session, sample: bool,
    forced: Callable[[], tuple[Tensor, Tensor] | None] | None = None,
) -> None:  # fmt: skip
    """Greedy search, or sampling, with the drafter's guesses.

    Args:
        drafter: None for no guesses but those that are forced.
        session: the session, before its first step.
        sample: whether tokens are drawn.
        forced: of `Session.forced_tokens`: rows of which a processor knows how they go on, as a grammar may, are
            drafted that instead. Not for drafters that keep a model's cache in step with their own guesses.
    """
    for step in session.steps():
        running = session.unfinished
        if step.draft is None and session.history.level is not None:
            tokens = step.sample() if sample else step.best()
            chosen = tokens[:, None]  # [rows, 1]
            agreed = agreeing(None, chosen)
            step.commit(tokens)
        else:
            chosen = step.sample(each=True) if sample else step.best(each=True)  # [rows, k + 1]
            agreed = agreeing(step.draft, chosen)
            step.commit(chosen, counts=agreed + 1)
        if drafter is not None:
            drafter.learn(step, chosen, agreed, running)
        if host_sync.surely_none(session.unfinished):
            continue
        draft = None if drafter is None else drafter.draft()
        known = None if forced is None else forced()
        if known is not None:
            draft = joined(draft, *known)
        if draft is not None:
            session.draft(draft)


def joined(draft: Tensor | None, known: Tensor, counts: Tensor) -> Tensor:
    """What is known of a row, where there is any, else its draft.

    Args:
        draft: `[rows, k]`, long, or None.
        known: `[rows, n]`, long.
        counts: `[rows]`, long: how much is known of each row.
    """
    if draft is None:
        return known
    width = max(draft.shape[1], known.shape[1])
    known, draft = (torch.cat([x, x[:, -1:].expand(-1, width - x.shape[1])], dim=1) for x in (known, draft))
    return known.where(counts[:, None] > 0, draft)


def agreeing(draft: Tensor | None, chosen: Tensor) -> Tensor:
    """How many drafted tokens each row would have chosen itself: `[rows]`, long, 0 to k."""
    if draft is None:
        return torch.zeros_like(chosen[:, 0])
    return (draft == chosen[:, : draft.shape[1]]).long().cumprod(1).sum(1)
