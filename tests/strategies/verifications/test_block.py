"""Block verification: the law of its formula, and how much of a draft it takes."""

from __future__ import annotations

import pytest
import torch

from genmode_strategies.verifications.block import Block, weights
from genmode_strategies.verifications.rejection import Rejection

from ..verifications_support import LENGTH, along, drafts, expected, pairs


def test_a_block_takes_at_least_what_rejection_takes() -> None:
    gains: list[float] = []
    for p, q in pairs(30, seed=1):
        for count in (1, 2, 3):
            gains.append(expected(Block(), p, q, count) - expected(Rejection(), p, q, count))
            assert gains[-1] > -1e-12
            assert count > 1 or abs(gains[-1]) < 1e-12  # of one token there is no other rule
    assert max(gains) > 0.05


def test_a_block_takes_the_largest_number_of_its_formula() -> None:
    """The law of the largest i with u_i <= h_i, against the probabilities token by token."""
    for p, q in pairs(6, seed=3):
        texts = drafts()
        ps, qs, tokens = along(p, texts, LENGTH + 1), along(q, texts, LENGTH), torch.tensor(texts)
        possible = qs.gather(2, tokens[:, :, None])[:, :, 0].prod(1) > 0
        whole = weights(ps, qs, tokens)
        accepted = Block().accept(ps, qs, tokens, torch.full((len(texts),), LENGTH))
        for row in possible.nonzero()[:, 0].tolist():
            h = []
            for i in range(1, LENGTH):
                more = float((whole[row, i] * ps[row, i] - qs[row, i]).clamp(min=0).sum())
                left = more + 1 - float(whole[row, i])
                h.append(more / left if left > 0 else 1.0)
            h.append(float(whole[row, LENGTH]))
            for i in range(1, LENGTH + 1):  # the largest is i
                wanted = h[i - 1] * float(torch.tensor([1 - one for one in h[i:]]).prod())
                law = float(accepted[row, :i].prod()) * (1 - float(accepted[row, i]) if i < LENGTH else 1)
                assert law == pytest.approx(wanted, abs=1e-6)
