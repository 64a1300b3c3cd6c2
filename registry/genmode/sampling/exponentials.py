"""The noise of a draw, computed where it is needed.

With one draw, torch.multinomial(p, 1) is argmax(p / q) with q = torch.empty_like(p).exponential_(). On the
CPU that noise over the whole vocabulary costs more than all the rest of a sampling step. There torch
computes it as q = -log(1 - u) from 53-bit uniform numbers u taken one after the other, and torch.rand in
float64 takes the same numbers from the generator; so the logarithm can wait until it is known which tokens
are left. That is how torch's CPU generator works, not something torch promises: it is tried once per
process on a generator of its own, and where the numbers or the generator's state differ (builds that draw
through MKL, other devices), the noise is drawn by `exponential_` itself. The global generator ends in the
same state either way.
"""

from __future__ import annotations

import functools
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

_PROBE = 4096


@functools.cache
def _uniforms_suffice() -> bool:
    """Does -log(1 - u) of float64 uniforms give this build's exponential noise, bit by bit?"""
    generator = torch.Generator().manual_seed(0x5EED)
    drawn = torch.empty(_PROBE, dtype=torch.float32).exponential_(generator=generator)
    state = generator.get_state()
    generator.manual_seed(0x5EED)
    computed = torch.rand(_PROBE, dtype=torch.float64, generator=generator).neg_().log1p_().neg_().float()
    return bool(torch.equal(drawn, computed)) and bool(torch.equal(state, generator.get_state()))


class Exponentials:
    """Exponential noise of rate 1 over the vocabulary, already drawn; `at` and `full` may be called in any order."""

    def __init__(self, like: Tensor, generator: torch.Generator | None = None) -> None:
        """Draw.

        Args:
            like: `[rows, vocab]`, float32; its shape and device are taken.
            generator: the generator to advance; None for the global one of the device.
        """
        self._lazy = like.device.type == "cpu" and like.dtype == torch.float32 and _uniforms_suffice()
        if self._lazy:
            self._drawn = torch.rand(like.shape, dtype=torch.float64, generator=generator)
        else:
            self._drawn = torch.empty_like(like).exponential_(generator=generator)

    def _noise(self, drawn: Tensor) -> Tensor:
        return torch.log1p(-drawn).neg_().float() if self._lazy else drawn

    def at(self, ids: Tensor) -> Tensor:
        """The noise of the tokens `ids` `[rows, k]`; `[rows, k]`, float32."""
        return self._noise(self._drawn.gather(-1, ids))

    def full(self, rows: Tensor | None = None) -> Tensor:
        """The noise of the whole vocabulary, `[rows, vocab]`, or of the rows `rows` `[n]` alone; float32."""
        return self._noise(self._drawn if rows is None else self._drawn[rows])


@runtime_checkable
class PointNoise(Protocol):
    """Noise that is a function of row, step and token: the noise of a call with `seed=`."""

    def exponential_at(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Exponential noise of rate 1 of the tokens `ids` `[rows, k]`, or of the rows `rows` `[n]` alone, with
        `ids` `[n, k]`; float32 of the shape of ids. The same every time it is asked within a step."""
        ...


@runtime_checkable
class FullNoise(Protocol):
    """Noise that a generator draws for the whole vocabulary."""

    def exponential_full(self, like: Tensor) -> Tensor:
        """Exponential noise of rate 1 of the shape of `like` `[rows, vocab]`, float32."""
        ...


class GeneratorNoise:
    """The noise that torch.multinomial would draw, with `generator` left in the state it would leave."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        """`generator` None means the global one."""
        self.generator = generator

    def exponential_full(self, like: Tensor) -> Tensor:
        """Exponential noise of rate 1, `[rows, vocab]`, float32."""
        return Exponentials(like, self.generator).full()


class Field:
    """One step's noise over the vocabulary, wherever it comes from; drawn when the field is made."""

    def __init__(self, noise: PointNoise | FullNoise, like: Tensor) -> None:
        """`like` is `[rows, vocab]`, float32; a noise that has `exponential_at` is asked for single tokens."""
        self._like = like
        self._point = cast(PointNoise, noise) if hasattr(noise, "exponential_at") else None
        self._drawn: Exponentials | Tensor | None = None
        if isinstance(noise, GeneratorNoise):
            self._drawn = Exponentials(like, noise.generator)
        elif self._point is None:
            self._drawn = cast(FullNoise, noise).exponential_full(like)

    def at(self, ids: Tensor) -> Tensor:
        """The noise of the tokens `ids` `[rows, k]`; float32."""
        if self._point is not None:
            return self._point.exponential_at(ids)
        if isinstance(self._drawn, Exponentials):
            return self._drawn.at(ids)
        return cast(Tensor, self._drawn).gather(-1, ids)

    def full(self, rows: Tensor | None = None) -> Tensor:
        """The noise of the whole vocabulary, `[rows, vocab]`, or of the rows `rows` `[n]` alone; float32."""
        if self._point is not None:
            count, vocab = self._like.shape if rows is None else (rows.shape[0], self._like.shape[-1])
            ids = torch.arange(vocab, device=self._like.device).expand(count, -1)
            return self._point.exponential_at(ids, rows)
        if isinstance(self._drawn, Exponentials):
            return self._drawn.full(rows)
        drawn = cast(Tensor, self._drawn)
        return drawn if rows is None else drawn[rows]
