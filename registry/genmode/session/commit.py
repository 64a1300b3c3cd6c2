"""What a commit does to the rows: tokens, processors, cache, and which rows are done."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import stopping

if TYPE_CHECKING:
    from .session import Session
    from .step import Step


def record(session: Session, step: Step) -> None:
    """Record what the call returns of this step, if that was not done yet."""
    if session.recorder.active and not step.recorded:
        scores = step.scores if session.recorder.scores is not None else None
        session.recorder.step(step.logits, scores, session.engine.outputs)
    step.recorded = True


def advance(session: Session, step: Step, tokens: Tensor, rows: Tensor | None) -> None:
    """Every row takes one token, after row i has become `rows[i]`; called by `Step.commit`."""
    history = session.history
    record(session, step)
    if rows is not None:
        history.select(rows)
        if session.ending:
            session.unfinished = session.unfinished.index_select(0, rows)
        session.chain.reorder(rows)
        session.noise.select(rows)
        session.engine.select(rows, True)
        session.stopping.reorder(rows)
    replays = session.ending and session.engine.replays and bool(session.eos_token_ids)
    if replays:
        pad = session.pad_token_id
        tokens, session.unfinished = session.replay(closed, tokens, session.unfinished, pad, *session.eos_token_ids)
        session.some_done, session.pads = True, pad is not None
    elif session.pads:
        tokens = tokens.where(session.unfinished, session.pad_token_id or 0)
    length = history.uniform
    if length is None:
        raise ValueError("rows differ in length: commit(tokens, counts=...) until they are level again")
    history.reserve(length + 1)
    history.tokens[:, length] = tokens
    history.level(length + 1)
    session.chain.accept(tokens)
    session.noise.move(session)
    if session.ending:
        done = None if replays else session.stopping.ends(tokens)
        more = None
        if session.stopping.others:
            more = session.stopping.check(
                history, lambda: step.scores if rows is None else step.scores.index_select(0, rows)
            )
        if more is not None:
            done = more if done is None else done | more
        if done is not None and not session.surely_none(done):
            session.finish_rows(done)


def closed(tokens: Tensor, unfinished: Tensor, pad: int | None, *eos: int) -> tuple[Tensor, Tensor]:
    """`tokens` `[rows]` with padding in finished rows, and which rows, `[rows]`, bool, go on behind them."""
    if pad is not None:
        tokens = tokens.where(unfinished, pad)
    for one in eos:
        unfinished = unfinished & (tokens != one)
    return tokens, unfinished


def advance_unevenly(session: Session, step: Step, tokens: Tensor, counts: Tensor, walked: bool) -> None:
    """Row i takes its first `counts[i]` of `tokens` `[rows, width]`; called by `Step.commit`."""
    history, width = session.history, tokens.shape[1]
    positions = torch.arange(width, device=session.device)
    session.fed = width
    counts = counts.clamp(max=session.max_length - history.lengths).where(session.unfinished, 0)
    history.write(tokens)
    if session.chain.stateful and not walked:
        for position in range(width - 1):
            session.chain.accept(tokens[:, position])
    ended = _first_done(session, step, tokens)
    wishes = None if session.retreat is None else session.retreat.wishes(session, width)
    stops = ended
    if wishes is not None:
        stops = wishes.back if ended is None else ended | wishes.back
    if stops is not None:
        first = torch.where(stops & (positions < counts[:, None]), positions, width).amin(1)
        done = first < width
        counts = torch.minimum(counts, first + 1)
        if wishes is not None:
            done = done & ~wishes.take(first)
        session.finish_rows(done)
    if session.stopping.others and width > 1:  # they have seen all positions
        session.stopping.rollback(width - counts)
    if session.recorder.active:
        columns = session.decoded[:, None] + positions
        session.recorder.ragged(
            step.each_logits, step.each_scores if session.recorder.scores is not None else step.each_logits,
            columns, positions < counts[:, None], session.engine.outputs, session.prompt_length,
        )  # fmt: skip
    if session.chain.stateful:
        last = tokens.gather(1, (counts - 1).clamp(min=0)[:, None])[:, 0]
        if session.pad_token_id is not None:
            last = last.where(counts > 0, session.pad_token_id)
        if width > 1:
            session.chain.rollback((width - counts).clamp(max=width - 1))
        session.chain.accept(last)
    history.differ(history.lengths + counts, (history.uniform or history.bound) + width)
    unfed = width - counts
    if session.retreat is not None:
        unfed = unfed + session.retreat.go_back(session, wishes)
    session.finish_rows(history.lengths >= session.max_length)
    session.engine.rewind(unfed)
    session.noise.move(session)
    _level(session)


def _level(session: Session) -> None:
    """On the host, notice that rows have one length again."""
    if stopping.reads_freely(session.device):
        shortest, longest = (int(x) for x in torch.aminmax(session.history.lengths))
        bound(session, longest)
        if shortest == longest:
            session.history.level(shortest)
            session.engine.settle(shortest - 1)


def bound(session: Session, longest: int) -> None:
    """The host learns that no row is longer than `longest`."""
    session.history.bound = min(session.history.bound, longest)
    session.engine.limit(longest - 1)


def _unasked() -> Tensor:
    raise RuntimeError("no criterion of this call reads scores")


def _first_done(session: Session, step: Step, tokens: Tensor) -> Tensor | None:
    """Which positions end their row, `[rows, width]`, bool; those that are not taken say nothing."""
    done = session.stopping.ends(tokens)
    if session.stopping.others:
        columns: list[Tensor] = []
        for position in range(tokens.shape[1]):
            seen = (
                functools.partial(step.each_scores.select, 1, position) if session.stopping.needs_scores else _unasked
            )
            more = session.stopping.check(session.history.ahead(position + 1), seen)
            columns.append(more if more is not None else torch.zeros_like(session.unfinished))
        stacked = torch.stack(columns, dim=1)
        done = stacked if done is None else done | stacked
    return done
