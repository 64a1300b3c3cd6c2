"""KGW's lists of candidates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmode_processors.watermarks.kgw import Kgw, best_candidates

from .marks_support import past

VOCAB = 100


def test_lists_that_are_kept_give_way_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from genmode_processors.watermarks import kgw

    monkeypatch.setattr(kgw, "KEPT_BYTES", 0)  # 16 lists
    mark = Kgw(key=7, vocab_size=VOCAB)
    generator = torch.Generator().manual_seed(0)
    for count in (3, 20, 5, 40, 1, 16):
        ids = torch.randint(0, 60, (count, 2), generator=generator)
        fresh = Kgw(key=7, vocab_size=VOCAB)
        zeros = torch.zeros(count, VOCAB)
        assert torch.equal(mark.process(zeros.clone(), past(ids, 2)), fresh.process(zeros.clone(), past(ids, 2)))


@given(st.integers(1, 90), st.integers(0, 5))
def test_the_forty_best_are_those_of_a_sort(vocab: int, kinds: int) -> None:
    scores = torch.randint(0, kinds + 1, (2, vocab), generator=torch.Generator().manual_seed(vocab)).float()
    expected = scores.sort(-1, descending=True).indices[:, :40]
    assert torch.equal(best_candidates(scores).sort(-1).values, expected.sort(-1).values)
