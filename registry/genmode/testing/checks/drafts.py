"""Checks of drafters: what they guess fits the rows, and changes nothing of them but how fast they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...contract import Draft, Kind, Session, Trait
from ..harness.case import Case
from ..harness.check import check, fail, inapplicable, require
from ..harness.models import ids
from ..harness.probes import Ledger

Look = Callable[[Session, "tuple[Tensor, ...]", Any], None]
SAMPLED: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 14}
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 14}


def inputs(rows: int = 3) -> dict[str, Tensor]:
    """Prompts that repeat themselves, so that copies have something to find."""
    tokens = ids(rows, 4, 17).repeat(1, 3)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def plain(case: Case, **flags: Any) -> Tensor:
    """What is decoded without the drafter, and without what it alone takes."""
    mine = (key for key in (*case.further(), *case.values) if key != "tokenizer")
    call: dict[str, Any] = {**dict.fromkeys(mine), "draft": None, **flags}
    result: Tensor = case.generate(inputs(), **call)
    return result


def watched(case: Case, look: Look, **flags: Any) -> Tensor:
    """Decode with the drafter, and look at each guess beside the rows as they were before it."""
    component: Any = case.component

    def draft(self: Any, session: Session) -> Draft | None:
        history = session.history
        before = (history.tokens.clone(), history.lengths.clone(), session.unfinished.clone())
        made: Draft | None = component.draft(self, session)
        look(session, before, made)
        return made

    watching: Any = type(component.__name__, (component,), {"draft": draft, "name": component.name})
    result: Tensor = case.generate(inputs(), **flags, draft=watching(**case.values))
    return result


@check(Kind.DRAFTERS)
def drafts_fit(case: Case) -> str:
    """A draft is `genmode.Draft` of token ids `[rows, k]`, long, k at least 1, with counts from 0 to k if it has any."""
    widths: list[int] = []

    def look(session: Session, before: tuple[Tensor, ...], made: Any) -> None:
        if made is None:
            return
        require(isinstance(made, Draft), f"draft() gave a {type(made).__name__}; it has to be a genmode.Draft, or None")
        tokens, counts = made.tokens, made.counts
        fits = tokens.dim() == 2 and tokens.shape[0] == session.rows and tokens.shape[1] > 0
        require(
            fits and tokens.dtype == torch.long,
            f"tokens are {tuple(tokens.shape)}, {tokens.dtype}; they have to be [{session.rows}, k], long",
        )
        outside = tokens[(tokens < 0) | (tokens >= session.vocab_size)]
        require(not len(outside), f"token {outside[:1].tolist()} is none of the {session.vocab_size} that there are")
        if counts is not None:
            fits = counts.shape == (session.rows,) and bool(((counts >= 0) & (counts <= tokens.shape[1])).all())
            require(fits, f"counts are {counts.tolist()} of {tokens.shape[1]} tokens in {session.rows} rows")
        widths.append(tokens.shape[1])

    watched(case, look, **GREEDY)
    watched(case, look, **SAMPLED, seed=3)
    if not widths:
        inapplicable("it drafted nothing for prompts that repeat themselves")
    return f"{len(widths)} drafts of up to {max(widths)} tokens"


@check(Kind.DRAFTERS)
def probabilities_fit(case: Case) -> None:
    """With `Trait.PROBABILITIES` a draft under rejection says what each token was drawn from, and without it nothing."""
    stated, seen = Trait.PROBABILITIES in case.component.traits, 0

    def look(session: Session, before: tuple[Tensor, ...], made: Draft | None) -> None:
        nonlocal seen
        if made is None:
            return
        tokens, q, counts = made
        seen += 1
        if not stated:
            require(q is None, "a draft has probabilities; state Trait.PROBABILITIES, so that they are asked for")
            return
        if q is None:
            fail("a draft has no probabilities; pass them on, or leave Trait.PROBABILITIES out")
        require(q.shape == (*tokens.shape, session.vocab_size), f"probabilities are {tuple(q.shape)}")
        meant = torch.arange(tokens.shape[1]) < (tokens.shape[1] if counts is None else counts[:, None])
        gap = (q.sum(-1) - 1).abs().masked_fill(~meant.expand_as(tokens), 0).max()
        require(bool((q >= 0).all()) and float(gap) < 1e-3, "probabilities do not sum to 1 at each position")
        drawn = q.gather(2, tokens[:, :, None])[:, :, 0]
        require(bool((drawn > 0)[meant.expand_as(tokens)].all()), "a token was drafted whose probability is 0")

    watched(case, look, **SAMPLED, seed=3, verify="rejection")
    if not seen:
        inapplicable("it drafted nothing for prompts that repeat themselves")


@check(Kind.DRAFTERS)
def session_untouched(case: Case) -> None:
    """A guess leaves the rows as they are, and processors where they were: it may be wrong."""

    def look(session: Session, before: tuple[Tensor, ...], made: Draft | None) -> None:
        history, (tokens, lengths, unfinished) = session.history, before
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]
        same = torch.equal(history.lengths, lengths) and torch.equal(session.unfinished, unfinished)
        require(same, "draft() changed how long rows are, or which have ended")
        now = history.tokens[:, : tokens.shape[1]]
        require(torch.equal(now[inside], tokens[inside]), "draft() wrote into the rows' tokens")

    watched(case, look, **GREEDY, processors=[Ledger()])
    watched(case, look, **SAMPLED, seed=3, processors=[Ledger()])


@check(Kind.DRAFTERS)
def greedy_text_unchanged(case: Case) -> None:
    """The text of greedy search is the same with its drafts."""
    require(torch.equal(plain(case, **GREEDY), case.generate(inputs(), **GREEDY)), "greedy search gives another text")


@check(Kind.DRAFTERS)
def seeded_text_unchanged(case: Case) -> None:
    """Under `seed=` the text of sampling is the same with its drafts, and no further random numbers are drawn."""
    state = torch.get_rng_state()
    drafted = case.generate(inputs(), **SAMPLED, seed=3)
    require(torch.equal(torch.get_rng_state(), state), "it draws from torch's generator; use session.draft_scorer()")
    require(torch.equal(plain(case, **SAMPLED, seed=3), drafted), "sampling under a seed gives another text")


@check(Kind.DRAFTERS)
def object_serves_again(case: Case) -> None:
    """One object serves call after call: what one call left does not reach the next."""
    one: Any = case.make()
    flags: dict[str, Any] = {**SAMPLED, "seed": 3, "verify": "rejection"}
    first = case.generate(inputs(), **flags, draft=one)
    case.generate(inputs(1), **GREEDY, draft=one)
    again = case.generate(inputs(), **flags, draft=one)
    require(torch.equal(first, again), "the same call gives another text with an object that has served; see reset()")
