"""The drafting loop: a guess is run in one forward, and every row takes what the verification lets it take.

    draft d_1 .. d_k -> one forward -> the verification takes the first m of them, and one token behind

Rows that take the most probable token choose c_1 .. c_k+1, each behind the draft so far, and take c_1 .. c_m+1 with m the
largest number for which d_1 .. d_m = c_1 .. c_m: the result is that of greedy search for any draft. Where tokens are drawn,
see `genmode_strategies.verifications`. A bad draft costs time; rows take different numbers of tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import genmode
from genmode import host_sync

Forced = Callable[[], "tuple[Tensor, Tensor] | None"]


def drafted(
    session: genmode.Session, drafter: genmode.Drafter | None, verification: genmode.Verification | None,
    forced: Forced | None = None,
) -> None:  # fmt: skip
    """Greedy search, or sampling, with the drafter's guesses.

    Args:
        session: the session, before its first step.
        drafter: None for no guesses but those that are forced.
        verification: None for rows that take the most probable token.
        forced: of `Session.forced_tokens`: rows of which a processor knows how they go on, as a grammar may, are
            drafted that instead. Not for drafters that keep a model's cache in step with their own guesses.
    """
    draft: genmode.Draft | None = None
    if drafter is not None:
        drafter.begin(session, verification)
        if verification is not None and draws_freely(session):  # transformers drafts then, and draws for it
            draft = offer(session, drafter, forced)
    for step in session.steps():
        running = session.unfinished
        if step.draft is None or draft is None:
            each = session.history.level is None
            chosen = step.best(each=each) if verification is None else drawn(session, step, verification, each)
            agreed = torch.zeros_like(running, dtype=torch.long)
            chosen = chosen if each else chosen[:, None]  # [rows, 1]
            step.commit(chosen if each else chosen[:, 0], counts=agreed + 1 if each else None)
        else:
            if verification is None:
                chosen = step.best(each=True)  # [rows, k + 1]
                agreed = agreeing(step.draft, chosen)
            else:
                couples = genmode.Trait.COUPLES in verification.traits  # what was drafted and why is nothing to it
                run = draft if couples else fitted(draft, step.draft, session)
                chosen, agreed = verification.verify(session, step, run)
            step.commit(chosen, counts=agreed + 1)
        if drafter is not None:
            drafter.learn(step, chosen, agreed, running)
        draft = None
        if not host_sync.surely_none(session.unfinished):
            draft = offer(session, drafter, forced)


def offer(session: genmode.Session, drafter: genmode.Drafter | None, forced: Forced | None) -> genmode.Draft | None:
    """Have the next forward run a guess, and return it."""
    draft = None if drafter is None else drafter.draft(session)
    known = None if forced is None else forced()
    if known is not None:
        draft = joined(draft, *known)
    if draft is not None:
        session.draft(draft.tokens)
    return draft


def drawn(
    session: genmode.Session, step: genmode.Step, verification: genmode.Verification, each: bool
) -> Tensor:  # fmt: skip
    """A token of each row without a draft: `[rows]`, or `[rows, 1]` if `each`.

    Drawn as a verification draws behind a draft of no token, which the row may have in a batch: the same under `seed=`.
    """
    if genmode.Trait.COUPLES in verification.traits or draws_freely(session):
        return step.sample(each=each)
    tokens = session.multinomial(step.each_scores[:, -1].softmax(-1))
    return tokens if each else tokens[:, 0]


def draws_freely(session: genmode.Session) -> bool:
    """Whether random numbers are torch's own, and their order therefore matters."""
    return session.replay.multinomial is not None


def fitted(draft: genmode.Draft, run: Tensor, session: genmode.Session) -> genmode.Draft:
    """The draft as it was run, `run` `[rows, width]`: cut off or filled up, with q and how much each row has room for."""
    tokens, q, counts = draft
    width, had = run.shape[1], tokens.shape[1]
    room = (session.max_length - 1 - session.history.lengths).clamp(min=0)
    counts = room.clamp(max=min(width, had)) if counts is None else torch.minimum(counts, room).clamp(max=width)
    if q is None:
        q = certain(run, session.vocab_size)
    elif width > had:
        q = torch.cat([q, certain(run[:, had:], session.vocab_size)], dim=1)
    return genmode.Draft(run, q[:, :width], counts)


def certain(tokens: Tensor, vocab: int) -> Tensor:
    """The distribution of what is no chance: 1 at each of `tokens` `[rows, k]`; `[rows, k, vocab]`, float32."""
    q = torch.zeros(*tokens.shape, vocab, device=tokens.device)
    return q.scatter_(2, tokens[:, :, None], 1.0)


def joined(draft: genmode.Draft | None, known: Tensor, counts: Tensor) -> genmode.Draft:
    """What is known of a row, where there is any, else its draft.

    Args:
        draft: with tokens `[rows, k]` and without probabilities, or None.
        known: `[rows, n]`, long.
        counts: `[rows]`, long: how much is known of each row.
    """
    if draft is None:
        return genmode.Draft(known, counts=counts)
    width = max(draft.tokens.shape[1], known.shape[1])
    known, tokens = (
        torch.cat([x, x[:, -1:].expand(-1, width - x.shape[1])], dim=1) for x in (known, draft.tokens)
    )  # fmt: skip
    meant = draft.counts if draft.counts is not None else torch.full_like(counts, draft.tokens.shape[1])
    return genmode.Draft(known.where(counts[:, None] > 0, tokens), counts=counts.where(counts > 0, meant))


def agreeing(draft: Tensor | None, chosen: Tensor) -> Tensor:
    """How many drafted tokens each row would have chosen itself: `[rows]`, long, 0 to k."""
    if draft is None:
        return torch.zeros_like(chosen[:, 0])
    return (draft == chosen[:, : draft.shape[1]]).long().cumprod(1).sum(1)
