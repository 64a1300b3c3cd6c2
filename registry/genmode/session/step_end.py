"""The end of a step: is the loop over, are the numbers sound, what may be streamed.

On the CPU all of this is known at once. From a device it comes one step late, so that the host never waits
for work that it has just queued; what was decoded meanwhile is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling.selection import highest_values
from .judging import crossed, exhausted, unsound
from .readback import AsyncReadback

if TYPE_CHECKING:
    from .scores import StepScores
    from .state import DecodeState
    from .stream import Emitter


class StepEnd:
    """Ends the steps of one call, whose state it does not keep."""

    def __init__(self, state: DecodeState) -> None:
        self.agree, self.peers = state.surroundings.agree, state.surroundings.peers
        self.host_reads_freely = state.host_reads_freely
        self.brings_tokens = (
            state.emitter is not None
            and not (state.abilities.drafts or state.abilities.backtracks or state.abilities.population)
        )  # fmt: skip
        self.readback = AsyncReadback(state.device, 5 + (state.rows if self.brings_tokens else 0))
        self.undone = False
        self.level: int | None = None
        """The length that all rows had after the step before, where the host knew it."""

    def check_logits(self, state: DecodeState, raw: Tensor) -> None:
        """Look at the largest logits, which are not finite where the model has failed.

        Raises:
            DecodingError: they are not finite, on the CPU; from a device, `reached` learns of it later.
        """
        if not (self.host_reads_freely and state.chain.keeps_nan):
            return
        alone = raw.shape[0] == 1
        if not math.isfinite(float(raw.amax() if alone else raw.flatten(1).amax(1).sum(dtype=torch.float32))):
            raise unsound(int((~raw.flatten(1).amax(1).isfinite()).long().argmax()))

    def reached(self, state: DecodeState, scores: StepScores) -> bool:
        """Whether the loop ends with the step that was just committed.

        Args:
            state: the call.
            scores: the step's.

        Raises:
            DecodingError: the scores are not numbers, or a row has no token left.
        """
        stop_flag, state.stop_flag = state.stop_flag, None
        level = state.history.level
        stop = self._on_host(state, stop_flag) if self.host_reads_freely else self._on_device(state, scores, stop_flag)
        stop = stop or (level is not None and level >= state.max_length)
        late = state.stopping.late
        if state.stopping.deadline is not None and self.agree is not None:
            late = self.agree(late)
        if self.peers is not None and not (stop or late):
            self.peers(False)
        return stop or late

    def wait_for_peers(self, forward: Callable[[], object]) -> None:
        """Keep running forwards, as the processes of a sharded model must, until all are done."""
        while self.peers is not None and self.peers(True):
            forward()

    def _on_host(self, state: DecodeState, stop_flag: Tensor | None) -> bool:
        if state.emitter is not None and state.ending and not state.abilities.population:
            self._stream(state, state.emitter)
        if stop_flag is not None and bool(stop_flag):
            return True
        return state.ending and state.some_done and not bool(state.unfinished.any())

    def _on_device(self, state: DecodeState, scores: StepScores, stop_flag: Tensor | None) -> bool:
        """Send this step's flags, read those of the step before."""
        seen = scores.judged
        if seen is None and state.chain.keeps_nan:
            seen = scores.raw
        may_be_masked = not state.ending
        level = state.history.level
        before_level, self.level = self.level, level
        unfinished = state.unfinished if state.ending and state.some_done else None
        last = state.history.last()[:, 0] if self.brings_tokens else None
        rows, state.reordered = state.reordered, None
        inputs = None if rows is None else state.inputs
        if level is None:
            values = report(seen, may_be_masked, unfinished, stop_flag, last, inputs, rows, state.history.lengths)
        else:
            values = state.engine.replay(report, seen, may_be_masked, unfinished, stop_flag, last, inputs, rows, None)
        before = self.readback.exchange(values)
        if state.emitter is not None and state.ending and not self.brings_tokens:
            self._stream(state, state.emitter)
        if before is None:
            return False
        if int(before[1]) < state.rows and seen is not None:
            raise exhausted(state, int(before[1])) if int(before[3]) else unsound(int(before[1]), state)
        if int(before[4]):
            raise crossed()
        if self.brings_tokens and state.ending and state.emitter is not None:
            state.emitter.put(before[5:])
        if level is None:  # one step later rows are longer by at most what that step fed
            state.limit((int(before[2]) if before_level is None else before_level) + state.step_width)
        if int(before[0]):
            return False
        self._undo(state)
        return True

    def _stream(self, state: DecodeState, emitter: Emitter) -> None:
        """Hand the streamer what can no longer change; waits for the device."""
        final = None if state.backtracking is None else state.backtracking.final(state.history.lengths)
        emitter.advance(state.history, state.unfinished, final)

    def _undo(self, state: DecodeState) -> None:
        """Take back the step that was decoded before the host learned of the stop."""
        self.undone = True
        state.noise.restore()
        if state.history.level is not None:  # rows of different lengths take nothing once they are done
            state.history.set_level(state.history.level - 1)
            state.recorder.undo()

    def flush(self, state: DecodeState) -> None:
        """The loop has ended: hand the streamer what is still on its way."""
        if state.emitter is None:
            return
        if state.result is not None:
            state.emitter.reach(state.result[:: max(1, len(state.result) // state.num_inputs)], None)
        elif state.abilities.population:
            state.emitter.reach(state.sequences()[state.first_rows], None)
        elif self.brings_tokens:
            last = self.readback.last()
            if last is not None and not self.undone:
                state.emitter.put(last[5:])
        elif state.backtracking is not None:
            state.emitter.advance(state.history, torch.zeros_like(state.unfinished))
        state.emitter.end()


def report(
    scores: Tensor | None, may_be_masked: bool, unfinished: Tensor | None, stop_flag: Tensor | None,
    last: Tensor | None, inputs: Tensor | None, rows: Tensor | None, lengths: Tensor | None,
) -> Tensor:  # fmt: skip
    """What the host must know of a step: `[5]` or `[5 + rows]`, long.

    Args:
        scores: `[rows, ..., vocab]`: what tokens were chosen from; None if they may be anything.
        may_be_masked: whether rows that go on may have no token left, as beams may that others replace.
        unfinished: `[rows]`, bool; None if no row can have ended.
        stop_flag: one bool; None for false.
        last: `[rows]`, long: tokens to be streamed.
        inputs, rows: `[rows]`, long: each row's input, and which row it continues; None where rows stay.
        lengths: `[rows]`, long; None if the host knows them.

    Returns:
        Whether the loop goes on, how many rows there are before the first whose highest score is not finite, the greatest
        length, whether a row has no token left, whether one continues another input's, and the tokens to be streamed. What was
        not given counts for nothing.
    """
    device = next(one.device for one in (scores, unfinished, stop_flag, last, lengths, rows) if one is not None)
    one = torch.ones(1, dtype=torch.long, device=device)
    running = one if unfinished is None else unfinished.any().long()[None]
    if stop_flag is not None:
        running = running * ~stop_flag
    sound = dead = one
    if scores is not None:
        best = highest_values(scores.flatten(1))
        if may_be_masked:
            best = best.clamp(min=0.0)
        elif unfinished is not None:
            best = best.masked_fill(~unfinished, 0.0)
        sound = (best - best == 0).cumprod(0, dtype=torch.long).sum(0, keepdim=True)  # a finite number less itself is 0
        dead = (best.amin(0, keepdim=True) == -torch.inf).long()
    longest = one if lengths is None else lengths.amax()[None]
    crossing = 0 * one
    if inputs is not None and rows is not None:
        crossing = (inputs.index_select(0, rows) != inputs).any().long()[None]
    return torch.cat([running, sound, longest, dead, crossing, *([] if last is None else [last])])
