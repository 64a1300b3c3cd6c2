"""Schemes that promise to keep a distribution: chi-square on a toy model, for one token and for sequences.

Seeds are fixed; the bound of each test is the 1 - 1e-4 quantile.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from .marks_support import contexts, make, past

COUNT = 12000
LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.0, 0.2, 1.2, -torch.inf, 0.7])
QUANTILES = {10: 35.56, 15: 44.26}
"""Chi-square, by degrees of freedom."""


def statistic(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected) ** 2 / expected)[expected > 0].sum())


def permute_and_flip(scores: Tensor) -> Tensor:
    """P(v has the largest score + Exp(1)), by numerical integration over the largest value t."""
    t = torch.linspace(0, 40, 400_001, dtype=torch.float64)[:, None] + scores.max()
    late = torch.exp(-(t - scores.double()))  # P(score + Exp(1) > t) = density at t
    density = torch.stack(
        [
            late[:, v] * torch.cat([1 - late[:, :v], 1 - late[:, v + 1 :]], 1).prod(1)
            for v in range(len(scores))
        ],
        1,
    )  # fmt: skip
    return torch.trapezoid(density, t[:, 0], dim=0)


@pytest.mark.parametrize("name", ["gumbel", "unbiased", "dip", "synthid", "permute_and_flip"])
def test_one_token_over_many_contexts(name: str) -> None:
    more = {"depth": 2} if name == "synthid" else {}
    scores = make(name, **more).process(LOGITS.repeat(COUNT, 1), contexts(COUNT, prompt=0 if more else 3))
    drawn = torch.multinomial(scores.softmax(-1), 1, generator=torch.Generator().manual_seed(4))[:, 0]
    shares = permute_and_flip(LOGITS) if name == "permute_and_flip" else LOGITS.double().softmax(-1)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)
    counts = torch.bincount(drawn, minlength=len(LOGITS)).double()
    assert counts[10] == 0
    assert statistic(counts, shares * COUNT) < QUANTILES[10]


def test_a_biased_scheme_fails_the_same_test() -> None:
    scores = make("dip", alpha=0.45).process(LOGITS.repeat(COUNT, 1), contexts(COUNT))
    changed = torch.multinomial((scores * 1.1).softmax(-1), 1, generator=torch.Generator().manual_seed(4))[:, 0]
    counts = torch.bincount(changed, minlength=len(LOGITS)).double()
    assert statistic(counts, LOGITS.double().softmax(-1) * COUNT) > QUANTILES[10]


def sequences(name: str, keys: int, steps: int = 4) -> Tensor:
    """Texts over two tokens, each under a key of its own: contexts of one token, which must repeat. `[keys]`, codes."""
    generator = torch.Generator().manual_seed(6)
    codes = torch.empty(keys, dtype=torch.long)
    for key in range(keys):
        mark = make(name, key=key * 7919 + 1, context_width=1)
        ids = torch.zeros(1, 1, dtype=torch.long)
        for _ in range(steps):
            scores = mark.process(CHAIN[ids[:, -1]].log(), past(ids, 1))
            ids = torch.cat([ids, torch.multinomial(scores.softmax(-1), 1, generator=generator)], 1)
        codes[key] = int("".join(map(str, ids[0, 1:].tolist())), 2)
    return codes


CHAIN = torch.tensor([[0.5, 0.5], [0.4, 0.6]])


def expected(count: int, steps: int = 4) -> Tensor:
    chances = []
    for text in itertools.product([0, 1], repeat=steps):
        chances.append(math.prod(float(CHAIN[a, b]) for a, b in itertools.pairwise([0, *text])))
    return torch.tensor(chances, dtype=torch.float64) * count


@pytest.mark.parametrize("name", ["gumbel", "unbiased"])
def test_sequences_in_which_contexts_repeat(name: str) -> None:
    counts = torch.bincount(sequences(name, 500), minlength=16).double()
    assert statistic(counts, expected(500)) < QUANTILES[15]


def test_sequences_are_not_kept_where_repetitions_are_marked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from genmode_processors.watermarks import choice

    monkeypatch.setattr(choice, "occurrences", lambda history, width: torch.zeros(history.rows, dtype=torch.long))
    counts = torch.bincount(sequences("gumbel", 150), minlength=16).double()
    assert statistic(counts, expected(150)) > 10 * QUANTILES[15]
