"""Rows that fork, leave, come in another order, and begin again: what changes with them, each thing in one place.

The model's cache follows late, before the next forward: rows that fork and others that leave between two forwards cost
one copy. A row's random numbers do not return when it begins again, since tokens that were taken back count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..engines.padded import PaddedRows, captured_width
from ..engines.resting import RestingRows
from ..errors import DecodingError, UnsupportedError
from .state import NEVER

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from .state import DecodeState


def fork(state: DecodeState, rows: Tensor) -> None:
    """A new row behind all others for each of `rows` `[n]`, long, which goes on from where that one is."""
    stay = torch.arange(state.rows, device=state.device)
    try:
        _check(state, rows, "fork")
        rows = rows.to(state.device)
        _become(state, torch.cat([stay, rows]))
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise DecodingError(
            f"{len(rows)} more rows beside {state.rows} do not fit into memory: fork fewer, drop others first, or decode "
            "fewer inputs at a time"
        ) from error


def drop(state: DecodeState, rows: Tensor) -> None:
    """The rows `rows` `[n]`, long, leave; the others keep their order."""
    _check(state, rows, "drop")
    stays = torch.ones(state.rows, dtype=torch.bool, device=state.device)
    stays[rows.to(state.device)] = False
    left = state.inputs[stays]
    missing = [one for one in range(state.num_inputs) if not bool((left == one).any())]
    if missing:
        raise ValueError(
            f"drop({_shown(rows)}) leaves no row of input {', '.join(map(str, missing))}: each input keeps at least one, "
            "which its result is"
        )
    _become(state, stays.nonzero()[:, 0])


def restart(state: DecodeState, lengths: Tensor) -> None:
    """Row i keeps its first `lengths[i]` tokens, prompt and padding included, and is decoded from there again."""
    history = state.history
    if not state.abilities.rewinds:
        raise UnsupportedError('a strategy whose rows begin again states needs = {"population", "rollback"}')
    if state.step_index < 0:
        raise ValueError("restart comes behind a step: nothing has been decoded yet")
    if lengths.dtype != torch.long or tuple(lengths.shape) != (state.rows,):
        raise ValueError(f"restart takes a length for each of {state.rows} rows, [{state.rows}], long; given {lengths}")
    lengths = lengths.to(state.device)
    wrong = (lengths < history.prompt) | (lengths > history.lengths)
    if bool(wrong.any()):
        row = int(wrong.long().argmax())
        raise ValueError(
            f"row {row} cannot begin again behind {int(lengths[row])} tokens: it has {int(history.lengths[row])}, the "
            f"first {history.prompt} of which are the prompt and stay"
        )
    sent = 0 if state.emitter is None else state.emitter.sent
    if bool((lengths < sent).any()):
        row = int((lengths < sent).long().argmax())
        raise ValueError(
            f"row {row} cannot begin again behind {int(lengths[row])} tokens, since {sent} have been streamed: settle "
            "what is final and no more"
        )
    counts = history.lengths - lengths
    whole = lengths >= torch.minimum(state.ends, history.lengths)
    if state.chain.stateful:
        state.chain.rollback(counts)
    state.stopping.rollback(counts)
    state.taken_back = state.taken_back + counts
    history.set_lengths(lengths, history.bound)
    state.engine.rewind(counts + 1 + state.held)  # a look has run the last token already
    state.held = -1
    state.unfinished = (state.unfinished | ~whole) & (lengths < state.max_length)
    state.ends = state.ends.masked_fill(state.unfinished, NEVER)
    state.some_done = not bool(state.unfinished.all())
    state.draft = state.form = state.ready_logits = None
    state.begins = True
    if state.recorder.active:
        state.recorder.trim(state.decoded)
    if state.backtracking is not None:
        state.backtracking.restart(lengths)
    state.noise.move(state)
    notice_level(state)


def notice_level(state: DecodeState) -> None:
    """Where the host may look, notice that rows have one length again."""
    if state.host_reads_freely and state.history.level is None:
        shortest, longest = (int(x) for x in torch.aminmax(state.history.lengths))
        state.limit(longest)
        if shortest == longest:
            state.history.set_level(shortest)
            state.engine.settle(shortest - 1)


def arrange(state: DecodeState) -> None:
    """The call ends: rows of one input stand together, inputs in their order, each input's rows in that of the rows."""
    order = state.inputs.argsort(stable=True)
    if not torch.equal(order, torch.arange(state.rows, device=state.device)):
        _become(state, order)


def follow(state: DecodeState) -> None:
    """Have the model's cache become what the rows are; before it is used."""
    moved, state.moved = state.moved, None
    if moved is not None:
        _move(state, moved)
    if state.abilities.rests and state.pads and state.ready_logits is None:
        _rest(state)


def _move(state: DecodeState, rows: Tensor) -> None:
    """The engine's row i becomes what its row `rows[i]` was; captured forwards are of few numbers of rows."""
    engine, count = state.engine, len(rows)
    if not engine.replays:
        engine.select(rows, False)
        return
    width = captured_width(count)
    own = engine.engine if isinstance(engine, PaddedRows) else engine
    own.select(torch.cat([rows, rows[:1].expand(width - count)]), False)
    state.engine = own if width == count else cast("Engine", PaddedRows(own, count, width, rows.device))


def _rest(state: DecodeState) -> None:
    """Rows that have ended leave the forward, once they are half of those that run."""
    engine = state.engine
    running = state.unfinished.nonzero()[:, 0]
    before = len(engine.running) if isinstance(engine, RestingRows) else state.rows
    if 0 < len(running) <= before // 2:
        if isinstance(engine, RestingRows):
            places = torch.searchsorted(engine.running, running)
            engine.engine.select(places, False)
            engine.running = running
        else:
            state.engine = cast("Engine", RestingRows(engine, running, state.rows))


def _become(state: DecodeState, rows: Tensor) -> None:
    """Row i becomes what row `rows[i]` was."""
    state.history.select(rows)
    for name in ("unfinished", "inputs", "ends"):
        setattr(state, name, getattr(state, name).index_select(0, rows))
    for name in ("taken_back", "draft", "ready_logits"):
        kept = getattr(state, name)
        if isinstance(kept, Tensor):
            setattr(state, name, kept.index_select(0, rows))
    if state.form is not None:
        state.form = state.form.select(rows)
    state.noise.select(rows)
    state.chain.reorder(rows)
    state.stopping.reorder(rows)
    if state.backtracking is not None:
        state.backtracking.select(rows)
    state.recorder.select(rows)
    for one in state.draft_models:
        one.reorder(rows)
    state.moved = rows if state.moved is None else state.moved.index_select(0, rows)
    notice_level(state)


def _check(state: DecodeState, rows: Tensor, verb: str) -> None:
    """Raises ValueError or UnsupportedError if rows cannot be forked or dropped."""
    if rows.dtype != torch.long or rows.dim() != 1 or not len(rows):
        raise ValueError(f"{verb} takes numbers of rows, [n], long; given {_shown(rows)}")
    lowest, highest = (int(x) for x in torch.aminmax(rows))
    if lowest < 0 or highest >= state.rows:
        raise ValueError(f"{verb}({_shown(rows)}): rows are numbered from 0 to {state.rows - 1}")


def _shown(rows: Tensor) -> str:
    return f"{rows.dtype} {list(rows.shape)}" if rows.dim() != 1 or len(rows) > 16 else str(rows.tolist())
