"""How evidence is distributed in text without a mark: exact tails for the usual kinds of evidence.

    Bernoulli(rate)                   green tokens: a binomial tail, summed in log space
    Exponential()                     sums of Exp(1): the Erlang tail, the regularised upper gamma function
    Lattice(shares, first, spacing)   any variable of finitely many equally spaced values: its n-fold convolution
    WeightedBernoulli(rate, unit)     green tokens with weights of their own: convolution, weight by weight

A `tail` is P(S >= s), including s itself: on lattices this makes decisions conservative, never generous.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


class Bernoulli:
    """Values 0 and 1, of which 1 has probability `rate`. Weights other than one are not supported."""

    def __init__(self, rate: float) -> None:
        self.rate, self.mean, self.variance = rate, rate, rate * (1 - rate)

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        """The binomial tail from the number of ones on."""
        return _binomial_tail(int(values.sum()), len(values), self.rate)

    def least(self, count: int) -> float:
        """All are ones."""
        return self.rate**count


@functools.lru_cache(maxsize=65536)
def _binomial_tail(ones: int, count: int, rate: float) -> float:
    if ones <= 0:
        return 1.0
    k = np.arange(ones, count + 1)
    logs = _log_factorials(count)
    terms = logs[count] - logs[k] - logs[count - k] + k * math.log(rate) + (count - k) * math.log1p(-rate)
    top = float(terms.max())
    return min(1.0, math.exp(top) * float(np.exp(terms - top).sum()))


@functools.lru_cache(maxsize=256)
def _log_factorials(count: int) -> Floats:
    return torch.lgamma(torch.arange(1, count + 2, dtype=torch.float64)).numpy()


class Exponential:
    """Values are Exp(1), so that n of them add up to an Erlang(n) variable. Weights are not supported."""

    mean = variance = 1.0

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        """Q(n, s), the regularised upper incomplete gamma function, by its finite sum for integer n."""
        # P(Erlang(n) >= s) = P(Poisson(s) < n) = sum over k < n of exp(-s) s^k / k!
        total, count = float(values.sum()), len(values)
        if total <= 0 or math.isinf(total):
            return float(total <= 0)
        k = np.arange(count)
        terms = k * math.log(total) - total - _log_factorials(max(count - 1, 0))[:count]
        top = float(terms.max())
        return min(1.0, math.exp(top) * float(np.exp(terms - top).sum()))

    def least(self, count: int) -> float:
        """Sums have no upper end."""
        return 0.0 if count else 1.0


class Lattice:
    """Values `first + spacing * i` with probabilities `shares[i]`. Weights are not supported.

    The n-fold convolution is one Fourier transform. Its rounding error is about 1e-15 of the whole; where
    that is not small against the tail, the transform is of the exponentially tilted variable, whose mean is
    the observed sum, and the tilt is taken back term by term: the relative error stays below 1e-6.
    """

    def __init__(self, shares: Floats, first: float = 0.0, spacing: float = 1.0) -> None:
        self.shares, self.first, self.spacing = shares / shares.sum(), first, spacing
        steps = np.arange(len(shares))
        self._mean = float((self.shares * steps).sum())
        self._variance = float((self.shares * (steps - self._mean) ** 2).sum())
        self.mean, self.variance = first + spacing * self._mean, spacing**2 * self._variance
        self._tails: dict[int, Floats] = {}

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        """The exact tail of the sum, which is rounded to the lattice."""
        count = len(values)
        at = round((float(values.sum()) - self.first * count) / self.spacing)
        if at <= 0:
            return 1.0
        if at > count * (len(self.shares) - 1):
            return 0.0
        if count not in self._tails:
            if len(self._tails) > 64:
                self._tails.clear()
            self._tails[count] = _sums(self.shares, count)[::-1].cumsum()[::-1]
        plain = float(self._tails[count][at])
        return min(1.0, plain) if plain > 1e-8 else self._tilted(count, at)

    def _tilted(self, count: int, at: int) -> float:
        steps, logs = np.arange(len(self.shares)), np.log(np.maximum(self.shares, 1e-300))
        low, high = 0.0, 1.0
        while _tilted_mean(logs, steps, high) * count < at and high < 1e3:
            high *= 2
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if _tilted_mean(logs, steps, middle) * count < at else (low, middle)
        tilt = (low + high) / 2
        tilted = logs + tilt * steps
        log_sum = float(np.logaddexp.reduce(tilted))
        sums = np.maximum(_sums(np.exp(tilted - log_sum), count)[at:], 0.0)
        back = float((sums * np.exp(-tilt * np.arange(len(sums)))).sum())
        return math.exp(count * log_sum - tilt * at) * back

    def least(self, count: int) -> float:
        """All take the largest value."""
        return float(self.shares[-1]) ** count


def _tilted_mean(logs: Floats, steps: npt.NDArray[np.int64], tilt: float) -> float:
    exponents = logs + tilt * steps
    shares = np.exp(exponents - exponents.max())
    return float((shares * steps).sum() / shares.sum())


def _sums(shares: Floats, count: int) -> Floats:
    """Probabilities of the sum of `count` independent steps, from 0 on."""
    size = count * (len(shares) - 1) + 1
    length = 1 << (size - 1).bit_length()
    transformed = torch.fft.rfft(torch.from_numpy(shares), n=length)
    sums: Floats = torch.fft.irfft(transformed**count, n=length)[:size].numpy()
    return sums


class WeightedBernoulli:
    """Values 0 and 1, of which 1 has probability `rate`, with weights that are multiples of `unit`."""

    def __init__(self, rate: float, unit: float) -> None:
        self.rate, self.mean, self.variance, self.unit = rate, rate, rate * (1 - rate), unit

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        """The distribution of the weighted sum, built up weight by weight; all terms are positive."""
        if weights is None:
            return Bernoulli(self.rate).tail(values, None)
        steps = (weights / self.unit).round().long().cpu().numpy()
        at = int((steps * values.cpu().numpy()).sum())
        if at <= 0:
            return 1.0
        shares = np.zeros(int(steps.sum()) + 1)
        shares[0], end = 1.0, 1
        for step in steps[steps > 0]:
            grown = (1 - self.rate) * shares[: end + step]
            grown[step:] += self.rate * shares[:end]
            shares[: end + step] = grown
            end += int(step)
        return min(1.0, float(shares[at:].sum()))

    def least(self, count: int) -> float:
        """All are ones."""
        return self.rate**count
