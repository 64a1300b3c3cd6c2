"""What a commit does to the rows: tokens, processors, cache, padding, and which rows are done."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import host_sync
from .judging import check_choice, crossed
from .population import notice_level
from .state import NEVER

if TYPE_CHECKING:
    from .scores import StepScores
    from .state import DecodeState


def advance(state: DecodeState, scores: StepScores, tokens: Tensor, rows: Tensor | None) -> None:
    """Every row takes one token, after row i has become `rows[i]`."""
    history = state.history
    check_choice(state, scores)
    scores.record()
    state.reordered = rows
    if rows is not None:
        select(state, rows)
        if state.abilities.population:
            state.recorder.select(rows)
    eos, pad = state.vocabulary.eos, state.vocabulary.pad
    replays = state.ending and state.engine.replays and bool(eos)
    if replays:
        tokens, state.unfinished = state.engine.replay(closed, tokens, state.unfinished, pad, *eos)
        state.some_done, state.pads = True, pad is not None
    elif state.pads:
        tokens = tokens.where(state.unfinished, pad or 0)
    history.append(tokens)
    state.held -= 1
    state.chain.accept(tokens)
    state.noise.move(state)
    if state.ending:
        done = None if replays else state.stopping.ends(tokens)
        more = None
        if state.stopping.others:
            more = state.stopping.check(
                history, lambda: scores.scores if rows is None else scores.scores.index_select(0, rows)
            )
        if more is not None:
            done = more if done is None else done | more
        if done is not None and not host_sync.surely_none(done):
            if state.abilities.population:
                state.ends = state.ends.where(~(done & state.unfinished), history.level or 0)
            state.finish_rows(done)


def select(state: DecodeState, rows: Tensor) -> None:
    """Row i becomes what row `rows[i]` of its input was; all that follows rows follows."""
    if state.host_reads_freely and not torch.equal(state.inputs.index_select(0, rows), state.inputs):
        raise crossed()
    state.history.select(rows)
    if state.ending:
        state.unfinished = state.unfinished.index_select(0, rows)
    state.chain.reorder(rows)
    state.noise.select(rows)
    state.engine.select(rows, True)
    state.stopping.reorder(rows)
    if state.backtracking is not None:
        state.backtracking.select(rows)
    for one in state.draft_models:
        one.reorder(rows)


def closed(tokens: Tensor, unfinished: Tensor, pad: int | None, *eos: int) -> tuple[Tensor, Tensor]:
    """`tokens` `[rows]` with padding in finished rows, and which rows, `[rows]`, bool, go on behind them."""
    if pad is not None:
        tokens = tokens.where(unfinished, pad)
    for one in eos:
        unfinished = unfinished & (tokens != one)
    return tokens, unfinished


def advance_unevenly(
    state: DecodeState, scores: StepScores, tokens: Tensor, counts: Tensor, rows: Tensor | None = None,
    path: Tensor | None = None,
) -> None:  # fmt: skip
    """Row i takes its first `counts[i]` of `tokens` `[rows, width]`, after row i, its draft too, has become `rows[i]`.

    Of a draft that is a tree, nothing is left but the nodes `path` `[rows, width - 1]`, a chain.
    """
    history, chain, width = state.history, state.chain, tokens.shape[1]
    state.reordered = rows
    if rows is not None:
        select(state, rows)
        scores.follow(rows)
        state.recorder.select(rows)
        state.verifying = scores.draft
    if path is not None:
        state.engine.keep(path, counts - 1)
        scores.keep(path)
        state.verifying, state.held, state.climbing = scores.draft, path.shape[1], False
    positions = torch.arange(width, device=state.device)
    state.step_width = width
    counts = counts.clamp(max=state.max_length - history.lengths).where(state.unfinished, 0)
    history.write(tokens)
    if chain.stateful and not scores.walked:
        for position in range(width - 1):
            chain.accept(tokens[:, position])
    ended = _first_done(state, scores, tokens)
    backtracking = state.backtracking
    requests = None if backtracking is None else backtracking.requests(chain, history, width)
    stops = ended
    if requests is not None:
        stops = requests.back if ended is None else ended | requests.back
    if stops is not None:
        first = torch.where(stops & (positions < counts[:, None]), positions, width).amin(1)
        done = first < width
        counts = torch.minimum(counts, first + 1)
        if requests is not None:
            done = done & ~requests.take(first)
        state.finish_rows(done)
    check_choice(state, scores, counts)
    if state.stopping.others and width > 1:  # they have seen all positions
        state.stopping.rollback(width - counts)
    if state.recorder.active:
        columns = state.decoded[:, None] + positions
        state.recorder.ragged(
            scores.each_logits, scores.each_scores if state.recorder.scores is not None else scores.each_logits,
            columns, positions < counts[:, None], state.engine.outputs, history.prompt,
        )  # fmt: skip
    if chain.stateful:
        last = tokens.gather(1, (counts - 1).clamp(min=0)[:, None])[:, 0]
        if state.vocabulary.pad is not None:
            last = last.where(counts > 0, state.vocabulary.pad)
        if width > 1:
            chain.rollback((width - counts).clamp(max=width - 1))
        chain.accept(last)
        if state.abilities.population and bool((counts == 0).any()):  # so that a row may begin again where it ended
            chain.rollback((counts == 0).long())
    history.set_lengths(history.lengths + counts, history.bound + width)
    unfed = width - counts
    if backtracking is not None:
        gone = backtracking.go_back(chain, state.stopping, history, requests)
        state.taken_back, unfed = state.taken_back + gone, unfed + gone
    state.finish_rows(history.lengths >= state.max_length)
    if state.abilities.population:  # rows that are level again are padded, and their lengths do not tell any more
        state.ends = state.ends.where(state.unfinished | (state.ends < NEVER), history.lengths)
    state.engine.rewind(unfed)
    state.held, state.verifying = -1, None
    state.noise.move(state)
    notice_level(state)


def _unasked() -> Tensor:
    raise RuntimeError("no criterion of this call reads scores")


def _first_done(state: DecodeState, scores: StepScores, tokens: Tensor) -> Tensor | None:
    """Which positions end their row, `[rows, width]`, bool; those that are not taken say nothing."""
    done = state.stopping.ends(tokens)
    if state.stopping.others:
        columns: list[Tensor] = []
        for position in range(tokens.shape[1]):
            seen = (
                functools.partial(scores.each_scores.select, 1, position) if state.stopping.needs_scores else _unasked
            )
            state.ahead, state.judging = position + 1, True
            more = state.stopping.check(state.history.ahead(position + 1), seen)
            state.ahead, state.judging = 0, False
            columns.append(more if more is not None else torch.zeros_like(state.unfinished))
        stacked = torch.stack(columns, dim=1)
        done = stacked if done is None else done | stacked
    return done
