"""Stand-ins for what surrounds a call: a clock that is moved by hand, and a streamer that keeps what it gets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FakeClock:
    """A clock that moves only when it is told to, or by `tick` seconds each time it is read.

    Give it wherever a function like `time.monotonic` is wanted.
    """

    def __init__(self, now: float = 0.0, tick: float = 0.0) -> None:
        self.now, self.tick = now, tick

    def __call__(self) -> float:
        """The time in seconds."""
        self.now += self.tick
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class RecordingStreamer:
    """A streamer that keeps what it gets.

    Attributes:
        prompt: the first tensor, `[rows, length]`, long.
        pieces: the tokens, `[rows]` each, long.
        ended: how often `end` was called.
    """

    def __init__(self) -> None:
        self.prompt: Tensor | None = None
        self.pieces: list[Tensor] = []
        self.ended = 0

    def put(self, value: Any) -> None:
        """The prompt first, then one token of every row."""
        if self.prompt is None:
            self.prompt = value.clone()
        else:
            self.pieces.append(value.clone())

    def end(self) -> None:
        """No more tokens."""
        self.ended += 1

    @property
    def tokens(self) -> Tensor:
        """What came behind the prompt: `[rows, decoded]`, long."""
        if self.prompt is None:
            raise ValueError("nothing was streamed")
        return torch.stack(self.pieces, dim=1) if self.pieces else self.prompt[:, :0]
