"""Tails of evidence without a mark: by hand, by enumeration, and far out where only relative error counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmode.watermark.null_distributions import Bernoulli, Exponential, Lattice, WeightedBernoulli


def ones(count: int, total: int) -> torch.Tensor:
    return torch.tensor([1.0] * count + [0.0] * (total - count), dtype=torch.float64)


def test_three_of_four_fair_coins() -> None:
    assert Bernoulli(0.5).tail(ones(3, 4), None) == pytest.approx(5 / 16)
    assert Bernoulli(0.5).tail(ones(0, 4), None) == 1
    assert Bernoulli(0.25).tail(ones(2, 2), None) == pytest.approx(1 / 16)
    assert Bernoulli(0.25).least(3) == pytest.approx(1 / 64)


def test_an_exponential_and_a_sum_of_two() -> None:
    assert Exponential().tail(torch.tensor([2.0]).double(), None) == pytest.approx(math.exp(-2))
    # P(Erlang(2) >= s) = exp(-s) (1 + s)
    assert Exponential().tail(torch.tensor([1.0, 2.0]).double(), None) == pytest.approx(math.exp(-3) * 4)
    assert Exponential().tail(torch.zeros(3).double(), None) == 1
    assert Exponential().tail(torch.tensor([1.0, torch.inf]).double(), None) == 0
    assert (Exponential().least(3), Exponential().least(0)) == (0, 1)


@pytest.mark.parametrize("count", [1, 40, 200, 1000])
def test_an_erlang_tail_is_the_incomplete_gamma_function(count: int) -> None:
    for factor in (0.5, 1.0, 1.2, 1.5):
        total = torch.full((count,), factor, dtype=torch.float64)
        expected = torch.special.gammaincc(torch.tensor(float(count)).double(), total.sum())
        assert Exponential().tail(total, None) == pytest.approx(float(expected), rel=1e-7)


def test_two_dice() -> None:
    dice = Lattice(np.ones(6), first=1.0)
    assert (dice.mean, dice.variance) == pytest.approx((3.5, 35 / 12))
    assert dice.tail(torch.tensor([6.0, 6.0]), None) == pytest.approx(1 / 36)
    assert dice.tail(torch.tensor([5.0, 5.0]), None) == pytest.approx(6 / 36)
    assert dice.tail(torch.tensor([1.0, 1.0]), None) == 1
    assert dice.least(2) == pytest.approx(1 / 36)


@pytest.mark.parametrize("heads", [5, 30, 60, 100, 140, 180, 200])
def test_a_lattice_of_coins_is_a_binomial_however_far_out(heads: int) -> None:
    values = ones(heads, 200)
    assert Lattice(np.ones(2)).tail(values, None) == pytest.approx(Bernoulli(0.5).tail(values, None), rel=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=9),
    st.sampled_from([0.25, 0.5, 0.7]),
)
def test_weighted_coins_by_enumeration(drawn: list[tuple[int, bool]], rate: float) -> None:
    weights = [weight for weight, _ in drawn]
    seen = sum(weight for weight, on in drawn if on)
    expected = sum(
        math.prod(rate if bit else 1 - rate for bit in bits)
        for bits in itertools.product([0, 1], repeat=len(drawn))
        if sum(w * b for w, b in zip(weights, bits, strict=True)) >= seen
    )
    values = torch.tensor([float(on) for _, on in drawn], dtype=torch.float64)
    steps = torch.tensor(weights, dtype=torch.float64) * 0.125
    assert WeightedBernoulli(rate, 0.125).tail(values, steps) == pytest.approx(expected)


def test_equal_weights_are_a_binomial() -> None:
    values = ones(30, 40)
    null = WeightedBernoulli(0.5, 0.1)
    assert null.tail(values, torch.full((40,), 0.3, dtype=torch.float64)) == pytest.approx(
        Bernoulli(0.5).tail(values, None)
    )
    assert null.tail(values, None) == Bernoulli(0.5).tail(values, None)
    assert null.least(3) == 0.125
