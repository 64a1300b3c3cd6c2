"""All but the highest scores are masked as torch's sort and comparisons would mask them."""

from __future__ import annotations

import pytest
import torch

from genmode import host_sync
from genmode.sampling import masking

from .scores_support import KINDS, scores_of


@pytest.mark.parametrize("kind", [*KINDS, "nan", "lowest"])
@pytest.mark.parametrize("vocab", [1, 50, 2048, 5003])
@pytest.mark.parametrize("rows", [1, 3])
def test_keeps_the_best(kind: str, vocab: int, rows: int) -> None:
    scores = scores_of(kind, rows, vocab)
    if kind == "nan":
        scores[0, : vocab // 2] = torch.nan
    elif kind == "lowest":
        scores = torch.full_like(scores, torch.finfo(scores.dtype).min)
    for k in (1, 2, 40, vocab // 2 + 1, vocab):
        if k <= vocab:
            given, least = scores.clone(), scores.topk(k).values[:, -1:]
            wanted = scores.masked_fill(scores < least, -torch.inf)
            assert torch.equal(masking.keep_best(scores, k).nan_to_num(nan=7e30), wanted.nan_to_num(nan=7e30))
            assert torch.equal(masking.at_least(scores, least).nan_to_num(nan=7e30), wanted.nan_to_num(nan=7e30))
            with host_sync.late_host():
                assert torch.equal(masking.keep_best(scores, k).nan_to_num(nan=7e30), wanted.nan_to_num(nan=7e30))
            assert torch.equal(scores.nan_to_num(), given.nan_to_num())


def test_drops_a_tail_by_its_mass() -> None:
    shares = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.0, 0.5]])
    scores = shares.log()
    result, left = masking.without_tail(scores, 0.31, 1)
    assert left == [1]  # of four equal ones, one would go
    inf = torch.inf
    assert torch.equal(result[0], scores[0].where(torch.tensor([False, True, False, True]), -inf))
    assert torch.equal(result[2], scores[2])
    assert torch.equal(masking.without_tail(scores, 0.31, 3)[0][0], scores[0].where(shares[0] > 0.1, -inf))
    alone, left = masking.without_tail(scores[:1], 0.31, 1)
    assert (left, alone.tolist()) == ([], result[:1].tolist())
    assert masking.without_tail(torch.full((1, 4), -inf), 0.31, 1)[1] == [0]
