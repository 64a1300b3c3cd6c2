"""Typical acceptance, by hand."""

from __future__ import annotations

import torch

from genmode_strategies.verifications.typical import Typical


def test_by_hand() -> None:
    sure = torch.tensor([0.85, 0.10, 0.05])  # entropy 0.518: 0.3 exp(-H) = 0.179, so 0.09 counts
    wide = torch.full((3,), 1 / 3)  # entropy log 3: 0.3 / 3 = 0.1, so 0.09 counts
    p, counts = torch.stack([sure, wide, wide])[None], torch.tensor([2])
    q = p[:, :2]
    for draft, taken in (([0, 1], [1, 1]), ([1, 1], [1, 1]), ([2, 0], [0, 1])):
        assert Typical().accept(p, q, torch.tensor([draft]), counts).tolist() == [taken]
    strict = Typical(typical_epsilon=0.5, typical_delta=1.0)
    assert strict.accept(p, q, torch.tensor([[1, 0]]), counts).tolist()[0][0] == 0
    assert torch.equal(Typical().behind(p, q, torch.tensor([[2, 0]]), counts, torch.tensor([1])), p[:, 1])
