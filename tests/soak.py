"""A soak: mixed calls in threads, with cancels and failures, until the time is over; memory, handles and threads stay flat.

    python -m tests.soak --minutes 20
    python -m tests.soak --minutes 1 --threads 2 --json

Every result is compared with the one of the same call made alone before the soak began; what a cancelled or failed call
decoded has to be the beginning of it. The process is measured once a second. What is measured in the first quarter is
warming up; of the rest, the medians of the first and the last third are compared. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers

import genmode
from genmode.testing.harness.models import fresh

NEW_TOKENS = 16
PROMPTS = [torch.tensor([[5, 6, 7, 5, 6]]), torch.tensor([[8, 9, 10], [11, 12, 13]])]
CALLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "seed": 3, "top_k": 20, "top_p": 0.9},
    "penalties": {
        "do_sample": True,
        "seed": 4,
        "dry_multiplier": 0.8,
        "repetition_penalty": 1.2,
        "xtc_probability": 0.5,
    },
    "beams": {"num_beams": 3},
    "several": {"do_sample": True, "seed": 5, "num_return_sequences": 2},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "suffix lookup": {"strategy": "suffix_lookup"},
    "contrastive": {"strategy": "contrastive_search", "penalty_alpha": 0.6, "top_k": 4},
    "watermark": {"do_sample": True, "seed": 6, "watermark": genmode.WatermarkingConfig("gumbel", key=12345)},
    "details": {"return_dict_in_generate": True, "output_scores": True},
}
REFUSED: list[dict[str, Any]] = [
    {"temprature": 1.0},
    {"temperature": -1.0, "do_sample": True},
    {"watermark": {"key": 1}},
    {"strategy": "no_such"},
]
BOUNDS = {"megabytes": 24.0, "handles": 2.0, "threads": 2.0}
"""How far the medians of the last third may be above those of the first one."""


class Sample(NamedTuple):
    """What is measured once a second."""

    seconds: float
    megabytes: float
    handles: int
    threads: int


class Countdown:
    """Set after it has been asked so many times, as somebody who cancels in the middle of a call."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


class FailsLater(genmode.LogitsProcessor):
    """Fails in a step of its own."""

    contract_version = 1

    class Params(genmode.Params):
        good_steps: int = 3

    def begin(self, context: Any) -> None:
        self.left = self.params.good_steps

    def process(self, scores: Any, history: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("meant to fail")
        return scores


class Soak:
    """The state that the workers share."""

    def __init__(self, seconds: float, threads: int, seed: int) -> None:
        self.seconds, self.threads, self.seed = seconds, threads, seed
        self.model = fresh("llama")
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.samples: list[Sample] = []
        self.stop = threading.Event()
        self.expected = {
            (name, number): tokens_of(genmode.generate(self.model, prompt, max_new_tokens=NEW_TOKENS, **flags))
            for name, flags in CALLS.items()
            for number, prompt in enumerate(PROMPTS)
            if usable(name, number)
        }

    def work(self, worker: int) -> None:
        """One thread: calls at random, until it is told to stop."""
        chance = random.Random(self.seed * 1000 + worker)
        kinds: list[Callable[[random.Random], str]] = [self.whole, self.whole, self.whole, self.cancelled, self.failed]
        kinds += [self.streamed, self.left_stream, self.refused, self.explained]
        while not self.stop.is_set():
            kind = chance.choice(kinds)
            try:
                name = kind(chance)
                self.done[name] += 1
            except Exception:  # whatever goes wrong is what the soak looks for
                self.wrong.append(f"{kind.__name__}: {traceback.format_exc(limit=-3)}")
                if len(self.wrong) > 20:
                    self.stop.set()

    def pick(self, chance: random.Random) -> tuple[torch.Tensor, dict[str, Any], torch.Tensor]:
        """A prompt, the flags of a call, and what is expected of it."""
        name, number = chance.choice(list(self.expected))
        return PROMPTS[number], {"max_new_tokens": NEW_TOKENS, **CALLS[name]}, self.expected[name, number]

    def whole(self, chance: random.Random) -> str:
        prompt, flags, expected = self.pick(chance)
        same(tokens_of(genmode.generate(self.model, prompt, **flags)), expected)
        return "whole"

    def cancelled(self, chance: random.Random) -> str:
        name, number = chance.choice([pair for pair in self.expected if pair[0] in ("greedy", "sampled", "penalties")])
        try:
            genmode.generate(
                self.model,
                PROMPTS[number],
                max_new_tokens=NEW_TOKENS,
                cancel=Countdown(chance.randrange(20)),
                **CALLS[name],
            )
        except genmode.CancelledError as error:
            begins(error.sequences, self.expected[name, number])
            return "cancelled"
        return "cancelled too late"

    def failed(self, chance: random.Random) -> str:
        good = chance.randrange(NEW_TOKENS)
        try:
            genmode.generate(self.model, PROMPTS[1], max_new_tokens=NEW_TOKENS, processors=FailsLater(good_steps=good))
        except genmode.DecodingError as error:
            begins(error.sequences, self.expected["greedy", 1])
            return "failed"
        raise AssertionError("a processor that fails did not fail the call")

    def streamed(self, chance: random.Random) -> str:
        pieces = list(genmode.stream(self.model, PROMPTS[1], max_new_tokens=NEW_TOKENS))
        same(torch.stack(pieces, 1), self.expected["greedy", 1][:, PROMPTS[1].shape[1] :])
        return "streamed"

    def left_stream(self, chance: random.Random) -> str:
        pieces = genmode.stream(self.model, PROMPTS[0], max_new_tokens=NEW_TOKENS)
        for _ in range(chance.randrange(1, NEW_TOKENS)):
            next(pieces)
        pieces.close()  # type: ignore[attr-defined]  # it is a generator, which an iterator need not be
        return "left stream"

    def refused(self, chance: random.Random) -> str:
        try:
            genmode.generate(self.model, PROMPTS[0], max_new_tokens=NEW_TOKENS, **chance.choice(REFUSED))
        except (genmode.GenmodeError, ValueError):
            return "refused"
        raise AssertionError("what cannot be was not refused")

    def explained(self, chance: random.Random) -> str:
        prompt, flags, _ = self.pick(chance)
        assert str(genmode.explain(self.model, prompt, **flags))
        return "explained"

    def measure(self, begin: float) -> Sample:
        gc.collect()
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        handles = len(os.listdir("/proc/self/fd"))
        return Sample(
            time.monotonic() - begin, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, handles, threading.active_count()
        )

    def run(self) -> dict[str, Any]:
        """Run it, and what was found: calls by kind, what was wrong, and growth against `BOUNDS`."""
        begin = time.monotonic()
        workers = [threading.Thread(target=self.work, args=(n,), name=f"soak-{n}") for n in range(self.threads)]
        for one in workers:
            one.start()
        while not self.stop.wait(1.0) and time.monotonic() - begin < self.seconds:
            self.samples.append(self.measure(begin))
        self.stop.set()
        for one in workers:
            one.join(60)
        stuck = [one.name for one in workers if one.is_alive()]
        growth = grown(self.samples)
        self.wrong += [f"{name} does not end" for name in stuck]
        self.wrong += [f"{key} grew by {value:.1f}" for key, value in growth.items() if value > BOUNDS[key]]
        last = self.samples[-1]._asdict() if self.samples else {}
        seconds = round(time.monotonic() - begin, 1)
        return {"seconds": seconds, "calls": dict(self.done), "growth": growth, "last": last, "wrong": self.wrong}


def grown(samples: list[Sample]) -> dict[str, float]:
    """By how much the medians of the last third, warming up left out, are above those of the first."""
    steady = samples[len(samples) // 4 :]
    third = len(steady) // 3
    if third == 0:
        raise SystemExit("too short to tell: give more --minutes")
    return {
        key: round(
            statistics.median(getattr(one, key) for one in steady[-third:])
            - statistics.median(getattr(one, key) for one in steady[:third]),
            2,
        )
        for key in BOUNDS
    }


def usable(name: str, number: int) -> bool:
    """Drafts of one row, everything else of both prompts."""
    return number == 0 or "lookup" not in name


def tokens_of(result: Any) -> torch.Tensor:
    return result if isinstance(result, torch.Tensor) else result.sequences


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.equal(found, expected), f"{found.tolist()} instead of {expected.tolist()}"


def begins(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    """What was decoded is the beginning of the whole; None where nothing was."""
    if found is not None:
        same(found, expected[:, : found.shape[1]])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of transformers, about flags of these calls, as is what it logs
    transformers.logging.set_verbosity_error()
    found = Soak(60 * given.minutes, given.threads, given.seed).run()
    if given.json:
        print(json.dumps(found))
    else:
        print(f"{found['seconds']} s, {sum(found['calls'].values())} calls: {found['calls']}")
        print(f"growth of medians: {found['growth']} (allowed: {BOUNDS}); at the end {found['last']}")
        print("\n".join(found["wrong"]) or "nothing wrong")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
