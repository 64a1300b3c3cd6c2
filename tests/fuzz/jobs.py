"""Many calls spread over processes."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Iterator

import torch

from .report import Tally, fuzz

PORTION = 100
MEMORY = 8 * 2**30
"""Bytes that a process may map, so that a call that wants too much fails instead of the machine."""


def spread(seed: int, first: int, calls: int, jobs: int) -> Iterator[Tally]:
    """The sums of each portion of the calls, as they are done."""
    end = first + calls
    portions = [(seed, range(at, min(at + PORTION, end))) for at in range(first, end, PORTION)]
    with multiprocessing.get_context("spawn").Pool(jobs, _prepare) as pool:
        yield from pool.imap_unordered(_portion, portions)


def _prepare() -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _portion(given: tuple[int, range]) -> Tally:
    return fuzz(*given)
