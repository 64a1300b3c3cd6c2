"""Interrupts at random points of calls: the error carries what was decoded, each row a beginning of the whole result.

    python -m tests.interrupts --points 200

A point is a line of genmode's own code, drawn evenly from those that run between the beginning of decoding and the end of
the call, at which KeyboardInterrupt is raised; every fourth point sets `cancel` after a number of questions instead. What
a streamer had got before has to be in the error too. The call that follows has to give the whole result. A point's number
is its seed, so that one alone can be repeated with --first. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import genmode
from genmode.call import loop
from genmode.testing.harness.models import tiny

from .soak import CALLS, Countdown

NEW_TOKENS = 12
PROMPT = torch.tensor([[8, 9, 10, 8, 9], [11, 12, 13, 11, 12]])
NAMES = ("greedy", "sampled", "penalties", "prompt lookup", "suffix lookup", "contrastive", "watermark", "details")
"""Of the soak's calls those that decode from left to right; what beams hold is no beginning of what they return."""
ROOTS = tuple(
    str(Path(one).parent)
    for one in (genmode.__file__, __import__("genmode_strategies").__file__, __import__("genmode_processors").__file__)
    if one is not None
)


class Interrupt(KeyboardInterrupt):
    """One that is told from the keyboard's."""


class Lines:
    """Counts the lines of genmode's code that run from the beginning of decoding on, and raises at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count, self.began = at, 0, False
        self.place = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOTS):
            return None
        self.began = self.began or frame.f_code is loop.decode.__code__
        return self.line if self.began else None

    def line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.count += 1
            if self.count == self.at:
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise Interrupt
        return self.line

    def during(self, call: Callable[[], Any]) -> Any:
        """Run a call under this trace."""
        former = sys.gettrace()
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(former)


class Sink:
    """Counts the tokens that each row has been streamed, at least."""

    def __init__(self) -> None:
        self.got = -1  # the first is the prompt

    def put(self, value: Any) -> None:
        self.got += 1

    def end(self) -> None: ...


def decoded(name: str, **more: Any) -> torch.Tensor:
    """The call of this name; `[rows, length]`."""
    found = genmode.generate(tiny("llama"), PROMPT, max_new_tokens=NEW_TOKENS, **CALLS[name], **more)
    return found if isinstance(found, torch.Tensor) else found.sequences


def fault(name: str, error: BaseException, whole: torch.Tensor, streamed: int) -> str | None:
    """What is wrong with what an error carries; None if nothing is."""
    found = getattr(error, "sequences", None)
    if found is None:
        return f"{name}: {type(error).__name__} carries no tokens"
    if found.shape[1] < PROMPT.shape[1] + max(0, streamed):
        return f"{name}: {streamed} tokens were streamed, and {found.shape[1] - PROMPT.shape[1]} are carried"
    for row, expected in zip(found.tolist(), whole.tolist(), strict=True):
        while row and row[-1] == 0:  # padding of rows that are shorter
            row.pop()
        if row != expected[: len(row)]:
            return f"{name}: {row} is no beginning of {expected}"
    return None


def tried(number: int) -> tuple[str, str | None]:
    """One point: how it ended, and what is wrong, with where it was."""
    chance = random.Random(number)
    name, sink = chance.choice(NAMES), Sink()
    counting = Lines()
    whole = counting.during(lambda: decoded(name, streamer=Sink()))
    if number % 4 == 3:
        lines, more = Lines(), {"cancel": Countdown(chance.randrange(NEW_TOKENS))}
    else:
        lines, more = Lines(chance.randint(1, counting.count)), {}
    try:
        lines.during(lambda: decoded(name, streamer=sink, **more))
    except (Interrupt, genmode.CancelledError) as error:
        how, wrong = type(error).__name__, fault(name, error, whole, sink.got)
    else:
        how, wrong = "ended before", None if more else f"{name}: the interrupt was lost"
    if wrong is None and not torch.equal(decoded(name), whole):
        wrong = f"{name}: the call that followed gave something else"
    return how, wrong and f"point {number}, {lines.place}: {wrong}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first point")
    options = parser.parse_args(arguments)
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(options.first, options.first + options.points):
        how, trouble = tried(number)
        ends[how] += 1
        wrong += [trouble] if trouble else []
    print(json.dumps({"points": options.points, "ends": dict(ends), "wrong": wrong}, indent=1))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
