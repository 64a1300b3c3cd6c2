"""One call, run within its time: what it gave or raised."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

import genmode
from genmode.testing.harness.doubles import RecordingStreamer

from .call import Call
from .models import pair, renew

LIMIT_S = 10.0
"""Longest time of a call; the models are small, and what a call asks for is little."""
TORCH_SEED = 11

transformers.logging.set_verbosity_error()


class Late(BaseException):
    """The time is up. No `Exception`, which a component's failure is taken for."""


@dataclass(frozen=True)
class Outcome:
    """What a call gave.

    Args:
        output: a tensor or an output class of transformers; None if it failed.
        error: what it raised.
        streamed: what its streamer got, `[rows, decoded]`, long.
        state: of torch's generator afterwards.
        changed: what of the models the call has left otherwise than it found it.
    """

    output: Any
    error: BaseException | None
    streamed: Tensor | None
    state: Tensor
    changed: str

    @property
    def tokens(self) -> Tensor:
        """`[rows, length]`, long."""
        tokens: Tensor = self.output if isinstance(self.output, Tensor) else self.output.sequences
        return tokens

    def recorded(self, name: str) -> tuple[Tensor, ...]:
        """`scores` or `logits`, a tensor for each step; empty where they were not asked for."""
        return () if isinstance(self.output, Tensor) else (self.output.get(name) or ())


def ours(call: Call, row: int | None = None) -> Outcome:
    """The call through genmode, of all rows or of one alone."""
    return _run(call, row, lambda model, **arguments: genmode.generate(model, **arguments))


def stock(call: Call) -> Outcome:
    """The call through transformers' own `generate`."""
    return _run(call, None, lambda model, **arguments: type(model).generate(model, **arguments), by_stock=True)


def streamed(call: Call) -> Outcome:
    """The call, without a tokenizer, through `genmode.stream`; its output is what came, prompt left out."""

    def collect(model: Any, **arguments: Any) -> Tensor:
        pieces = list(genmode.stream(model, **arguments))
        return torch.stack(pieces, dim=1) if pieces else torch.zeros(1, 0, dtype=torch.long)

    return _run(call, None, collect)


def _run(call: Call, row: int | None, generate: Callable[..., Any], by_stock: bool = False) -> Outcome:
    models = pair(call.family, call.dtype, by_stock)
    streamer = RecordingStreamer() if call.via == "streamer" else None
    arguments = {
        **call.inputs(row),
        **call.arguments(models, row),
        **({} if streamer is None else {"streamer": streamer}),
    }
    torch.manual_seed(TORCH_SEED)
    output, error = None, None
    try:
        with warnings.catch_warnings(), time_limit(LIMIT_S):
            warnings.simplefilter("ignore")
            output = generate(models.model, **arguments)
    except (Exception, Late) as raised:
        error = raised
    # transformers streams several tokens at once where it drafts; what it streams is not looked at
    tokens = streamer.tokens if streamer is not None and streamer.prompt is not None and not by_stock else None
    state, changed = torch.get_rng_state(), models.changed()
    if changed:
        renew(call.family, call.dtype, by_stock)
    return Outcome(output, error, tokens, state, changed)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `Late` after so many seconds; without effect outside of the main thread, where no signal comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise Late(f"not ready after {seconds} s")

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
