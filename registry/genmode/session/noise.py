"""Where a call draws its random numbers from.

Without `seed=`, torch's global generator is used exactly as transformers uses it, draw for draw. With
`seed=`, every number is a function of the row's seed, of how many tokens the row has decoded (those that a
processor took back included) and of what is drawn, so that a row's result does not depend on what else is in the
batch, on the device, or on drafting.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ParameterError
from ..sampling import counter_rng as counter
from ..sampling.candidates import GeneratorNoise
from ..sampling.selection import topk

DRAW_BITS = 40
"""Each further draw over the vocabulary within one step counts its ids from another multiple of 2^40."""


APART = 1 << 20
"""Lanes and draws from here on, and from twice as much, are a step's own: processors and positions do not get so far."""


class RowCounts(Protocol):
    """How far rows are."""

    @property
    def decoded(self) -> Tensor:
        """How many tokens each row has decoded: `[rows]`, long."""
        ...

    @property
    def taken_back(self) -> Tensor | int:
        """How many it has taken back so far: `[rows]`, long, or 0 for none."""
        ...


class Noise(Protocol):
    """A source of random numbers for the rows of one call."""

    def exponential_full(self, like: Tensor) -> Tensor:
        """Standard exponential numbers, float32, of the shape `[rows, vocab]` of `like`."""
        ...

    def uniform(self, count: int | None = None) -> Tensor:
        """One number in [0, 1) for each row, `[rows]`, float32; or `count` of them, `[rows, count]`."""
        ...

    def keep_apart(self, counts: RowCounts, draft: int | None = None) -> None:
        """The next numbers are of the rows' step alone: no position, processor or other step has them.

        Args:
            counts: how far rows are; each step begins elsewhere.
            draft: which token of a draft is drawn with them; None for its verification.
        """
        ...

    def move(self, counts: RowCounts, offset: Tensor | int = 0) -> None:
        """The next numbers are for rows that have decoded `counts.decoded + offset` tokens."""
        ...

    def select(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        ...

    def of(self, rows: slice | Tensor) -> Noise:
        """The source of some rows, one of each input, for draws that are made once for each input."""
        ...

    def mark(self) -> None:
        """A step begins; see `restore`."""
        ...

    def restore(self) -> None:
        """Take back the draws since the last mark."""
        ...


class TorchNoise(GeneratorNoise):
    """torch's generator of the device, as transformers uses it."""

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__()
        self.rows, self.device = rows, device
        self._generator = _cuda_generator(device)
        self._offset = 0

    def uniform(self, count: int | None = None) -> Tensor:
        return torch.rand(self.rows if count is None else (self.rows, count), device=self.device)

    def keep_apart(self, counts: RowCounts, draft: int | None = None) -> None:
        """Every number of torch's generator is another one."""

    def move(self, counts: RowCounts, offset: Tensor | int = 0) -> None:
        """torch's generator knows no rows."""

    def select(self, rows: Tensor) -> None:
        self.rows = rows.shape[0]

    def of(self, rows: slice | Tensor) -> Noise:
        return self

    def mark(self) -> None:
        if self._generator is not None:
            self._offset = self._generator.get_offset()

    def restore(self) -> None:
        if self._generator is not None:
            self._generator.set_offset(self._offset)


class SeededNoise:
    """Numbers computed from the row's seed, a counter and the token id.

    Of several rows that continue the same one, the first keeps its key; each other is a fork and gets the hash of that
    key and of how many rows this one has forked before: a function of where the row comes from and of nothing beside it.

    Args:
        seeds: one number for each row, `[rows]`, long.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.keys = seeds
        self.decoded = torch.zeros_like(seeds)
        self.forks = torch.zeros_like(seeds)
        """How many rows each row has forked, `[rows]`, long."""
        self.lane = self.draws = 0

    def exponential_full(self, like: Tensor) -> Tensor:
        ids = torch.arange(like.shape[-1], device=like.device) + (self.draws << DRAW_BITS)
        self.draws += 1
        return counter.exponential(self.keys, self.decoded, ids)

    def exponential_at(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """The same numbers at `ids` `[rows, k]` alone, or of the rows `rows` `[n]` with `ids` `[n, k]`."""
        if rows is None:
            return counter.exponential(self.keys, self.decoded, ids)
        return counter.exponential(self.keys[rows], self.decoded[rows], ids)

    def uniform(self, count: int | None = None) -> Tensor:
        first = self.lane + 1
        self.lane += 1 if count is None else count
        if count is None:
            return counter.uniform(self.keys, self.decoded, first)
        return counter.uniforms(self.keys, self.decoded, first, count)

    def keep_apart(self, counts: RowCounts, draft: int | None = None) -> None:
        self.move(counts)
        self.lane = self.draws = APART if draft is None else 2 * APART + draft

    def move(self, counts: RowCounts, offset: Tensor | int = 0) -> None:
        # tokens that were taken back count: the numbers which led to them are not drawn again
        self.decoded = counts.decoded + (counts.taken_back + offset)
        self.lane = self.draws = 0

    def select(self, rows: Tensor) -> None:
        keys, forks = self.keys.index_select(0, rows), self.forks.index_select(0, rows)
        alike, order = rows.sort(stable=True)
        begin = torch.searchsorted(alike, alike)
        before = torch.empty_like(rows).scatter_(0, order, torch.arange(len(rows), device=rows.device) - begin)
        others = torch.searchsorted(alike, rows, right=True) - torch.searchsorted(alike, rows) - 1
        first = before == 0  # of the rows that continue the same one
        self.keys = keys.where(first, counter.forked(keys, forks + before - 1))
        self.forks = (forks + others).where(first, 0)
        self.decoded = self.decoded.index_select(0, rows)

    def of(self, rows: slice | Tensor) -> Noise:
        part = SeededNoise(self.keys[rows])
        part.decoded = self.decoded[rows]
        part.draws = self.draws
        self.draws += 1
        return part

    def mark(self) -> None:
        """Draws are functions of the row; there is nothing to mark."""

    def restore(self) -> None:
        """Draws are functions of the row; there is nothing to take back."""


def drawn_from(noise: Noise | GeneratorNoise, weights: Tensor, count: int) -> Tensor:
    """Draw without replacement from each row of `[n, m]` weights: `[n, count]`, long."""
    numbers = noise.exponential_full(weights)
    return (weights / numbers).argmax(-1, keepdim=True) if count == 1 else topk(weights, count, over=numbers)[1]


def drawn_freely(weights: Tensor, count: int) -> Tensor:
    """The same with torch's generator."""
    return drawn_from(GeneratorNoise(), weights, count)


def _cuda_generator(device: torch.device) -> torch.Generator | None:
    if device.type != "cuda":
        return None
    return torch.cuda.default_generators[torch.empty(0, device=device).get_device()]


def share_state(device: torch.device) -> None:
    """Give all processes of the group the generator state of the first, so that they draw the same numbers."""
    generator = _cuda_generator(device)
    state = torch.get_rng_state() if generator is None else generator.get_state()
    state_there = state.to(device)
    torch.distributed.broadcast(state_there, 0)
    if generator is None:
        torch.set_rng_state(state_there.cpu())
    else:
        generator.set_state(state_there.cpu())


def row_seeds(seed: Any, inputs: int, copies: int, device: torch.device) -> Tensor:
    """A seed for each row, `[inputs * copies]`, long.

    One number serves every input, so that an input's result does not depend on its place in the batch; the
    copies that `num_return_sequences` or beams make of an input are told apart.

    Args:
        seed: an integer, or a list, tuple or tensor with one for each input.

    Raises:
        ParameterError: it is no integer and no list with one for each input.
    """
    if isinstance(seed, Tensor):
        seed = seed.tolist()
    numbers: list[Any] = list(seed) if isinstance(seed, (list, tuple)) else [seed] * inputs
    if not all(isinstance(number, Integral) for number in numbers):
        raise ParameterError(f"seed={seed!r}: give an integer, or a list with one for each of the {inputs} inputs")
    if len(numbers) != inputs:
        raise ParameterError(
            f"seed has {len(numbers)} numbers for {inputs} inputs; give one number, or one for each input"
        )
    base = torch.tensor([int(n) & (2**62 - 1) for n in numbers], dtype=torch.long).repeat_interleave(copies)
    copy = torch.arange(copies).repeat(inputs)
    return (base * 0x9E3779B1 + copy * 0x85EBCA77).to(device)
