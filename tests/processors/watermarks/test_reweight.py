"""The reweighting by its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmode_processors.watermarks import keyed_hash, reweight


def by_formula(scores: Tensor, key: int, alpha: float) -> Tensor:
    """p' of one row `[vocab]`, float64, by the formula, token after token along the order."""
    keys = torch.tensor([key])
    late = keyed_hash.bits(keys, len(scores))[0].tolist()
    down = bool(reweight.descending(keys))
    order = sorted(range(len(scores)), key=lambda token: (late[token], -token if down else token))
    shares = scores.double().softmax(-1)
    changed, start = torch.zeros_like(shares), 0.0
    for token in order:
        end = start + float(shares[token])
        changed[token] = sum(max(end - cut, 0) - max(start - cut, 0) for cut in (alpha, 1 - alpha))
        start = end
    return changed


@pytest.mark.parametrize("alpha", [0.5, 0.45, 0.1])
@pytest.mark.parametrize("vocab", [3, 256, 1000])
def test_the_reweighting_by_its_formula(vocab: int, alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reweight, "PART", 1)  # a block at a time
    scores = torch.randn(12, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    scores[3, ::2] = -torch.inf
    scores[7] = -torch.inf
    keys, every = torch.arange(12) * 977, torch.ones(12, dtype=torch.bool)
    for way in (reweight.BlockReweight(12, vocab), reweight.reweighted):
        found = way(scores.clone(), keys, alpha, every).double()
        for row in (*range(7), *range(8, 12)):
            shares = (found[row] - scores[row].double().logsumexp(-1)).exp()
            torch.testing.assert_close(shares, by_formula(scores[row], int(keys[row]), alpha), atol=1e-6, rtol=0)
        assert found[7].isneginf().all()
        assert torch.equal(way(scores.clone(), keys, alpha, ~every), scores)
