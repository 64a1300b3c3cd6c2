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

from ..errors import DecodingError
from ..selection import highest_values
from . import stopping
from .commit import bound
from .stopping import Flags
from .stream import Emitter

if TYPE_CHECKING:
    from .session import Session
    from .step import Step


class Conclusion:
    """Closes the steps of one session, which it does not keep: a session holds its conclusion.

    Args:
        session: the session.
        drafts: whether rows may take different numbers of tokens; streaming them asks the device each step.
        agree: makes all processes of a tensor-parallel group take the first one's word; None if alone.
        peers: tells the processes of a sharded model whether this one is done, and returns whether any is
            not; None if alone.
    """

    def __init__(
        self, session: Session, drafts: bool, agree: Callable[[bool], bool] | None, peers: Callable[[bool], bool] | None
    ) -> None:
        self.agree, self.peers = agree, peers
        self.host = stopping.reads_freely(session.device)
        self.carries = session.emitter is not None and not drafts
        self.flags = Flags(session.device, 3 + (session.rows if self.carries else 0))
        self.undone = False
        self.level: int | None = None
        """The length that all rows had after the step before, where the host knew it."""

    def note(self, session: Session, raw: Tensor) -> None:
        """Look at the largest logits, which are not finite where the model has failed.

        Raises:
            DecodingError: they are not finite, on the CPU; from a device, `reached` learns of it later.
        """
        if not (self.host and session.chain.keeps_nan):
            return
        alone = raw.shape[0] == 1
        if not math.isfinite(float(raw.amax() if alone else raw.flatten(1).amax(1).sum(dtype=torch.float32))):
            raise unsound(int((~raw.flatten(1).amax(1).isfinite()).long().argmax()))

    def reached(self, session: Session, step: Step) -> bool:
        """Whether the loop ends with `step`, which was just committed.

        Raises:
            DecodingError: the model's logits are not numbers.
        """
        stop_flag, session.stop_flag = session.stop_flag, None
        uniform = session.history.uniform
        stop = self._on_host(session, stop_flag) if self.host else self._on_device(session, step, stop_flag, uniform)
        stop = stop or (uniform is not None and uniform >= session.max_length)
        late = session.stopping.late
        if session.stopping.deadline is not None and self.agree is not None:
            late = self.agree(late)
        if self.peers is not None and not (stop or late):
            self.peers(False)
        return stop or late

    def wait_for_peers(self, forward: Callable[[], object]) -> None:
        """Keep running forwards, as the processes of a sharded model must, until all are done."""
        while self.peers is not None and self.peers(True):
            forward()

    def _on_host(self, session: Session, stop_flag: Tensor | None) -> bool:
        if session.emitter is not None and session.ending:
            self._stream(session, session.emitter)
        if stop_flag is not None and bool(stop_flag):
            return True
        return session.ending and session.some_done and not bool(session.unfinished.any())

    def _on_device(self, session: Session, step: Step, stop_flag: Tensor | None, uniform: int | None) -> bool:
        """Send this step's flags, read those of the step before."""
        logits = step.raw if session.chain.keeps_nan else None
        level, self.level = self.level, uniform
        unfinished = session.unfinished if session.ending and session.some_done else None
        last = session.history.ids[:, -1] if self.carries else None
        if uniform is None:
            values = report(logits, unfinished, stop_flag, last, session.history.lengths)
        else:
            values = session.replay(report, logits, unfinished, stop_flag, last, None)
        before = self.flags.exchange(values)
        if session.emitter is not None and session.ending and not self.carries:
            self._stream(session, session.emitter)
        if before is None:
            return False
        if logits is not None and int(before[1]) < session.rows:
            raise unsound(int(before[1]))
        if self.carries and session.ending and session.emitter is not None:
            session.emitter.put(before[3:])
        if uniform is None:  # one step later rows are longer by at most what that step fed
            bound(session, (int(before[2]) if level is None else level) + session.fed)
        if int(before[0]):
            return False
        self._undo(session)
        return True

    def _stream(self, session: Session, emitter: Emitter) -> None:
        """Hand the streamer what can no longer change; waits for the device."""
        final = None if session.retreat is None else session.retreat.final(session)
        emitter.advance(session.history, session.unfinished, final)

    def _undo(self, session: Session) -> None:
        """Take back the step that was decoded before the host learned of the stop."""
        self.undone = True
        session.noise.restore()
        if session.history.uniform is not None:  # rows of different lengths take nothing once they are done
            session.history.level(session.history.uniform - 1)
            session.recorder.undo()

    def flush(self, session: Session) -> None:
        """The loop has ended: hand the streamer what is still on its way."""
        if session.emitter is None:
            return
        if session.result is not None:
            session.emitter.reach(session.result[:: max(1, len(session.result) // session.inputs)], None)
        elif self.carries:
            last = self.flags.last()
            if last is not None and not self.undone:
                session.emitter.put(last[3:])
        elif session.retreat is not None:
            session.emitter.advance(session.history, torch.zeros_like(session.unfinished))
        session.emitter.end()


def report(
    logits: Tensor | None, unfinished: Tensor | None, stop_flag: Tensor | None, last: Tensor | None,
    lengths: Tensor | None,
) -> Tensor:  # fmt: skip
    """What the host must know of a step: `[3]` or `[3 + rows]`, long.

    Args:
        logits: `[rows, ..., vocab]`; None if they may be anything.
        unfinished: `[rows]`, bool; None if no row can have ended.
        stop_flag: one bool; None for false.
        last: `[rows]`, long: tokens to be streamed.
        lengths: `[rows]`, long; None if the host knows them.

    Returns:
        Whether the loop goes on, how many rows there are before the first whose logits are not finite, the greatest
        length, and the tokens to be streamed. What was not given counts for nothing.
    """
    device = next(one.device for one in (logits, unfinished, stop_flag, last, lengths) if one is not None)
    one = torch.ones(1, dtype=torch.long, device=device)
    running = one if unfinished is None else unfinished.any().long()[None]
    if stop_flag is not None:
        running = running * ~stop_flag
    sound = one
    if logits is not None:
        best = highest_values(logits.flatten(1))
        sound = (best - best == 0).cumprod(0, dtype=torch.long).sum(0, keepdim=True)  # a finite number less itself is 0
    longest = one if lengths is None else lengths.amax()[None]
    return torch.cat([running, sound, longest, *([] if last is None else [last])])


def unsound(row: int | None) -> DecodingError:
    """The error for logits that are not numbers."""
    return DecodingError(
        "the model's logits are not numbers (NaN or infinite)"
        + ("" if row is None else f" in row {row}")
        + "; look for overflow in float16 (bfloat16 or float32 avoid it), for damaged weights, or set "
        "remove_invalid_values=True to go on",
        row=row,
    )
