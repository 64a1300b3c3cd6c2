"""Schemes that choose the token: one survives with its score."""

from __future__ import annotations

import pytest
import torch

from genmode_processors.watermarks import keyed_hash
from genmode_processors.watermarks.choice import Choice

from .marks_support import KEY, contexts, make, past

VOCAB = 100
drawing = pytest.mark.parametrize("name", ["gumbel", "permute_and_flip"])


@drawing
def test_one_token_survives_with_its_score(name: str) -> None:
    scores = torch.randn(50, VOCAB)
    result = make(name).process(scores.clone(), contexts(50))
    kept = result > -torch.inf
    assert (kept.sum(1) == 1).all()
    assert torch.equal(result[kept], scores[kept])


@drawing
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 30.0])
def test_the_short_way_finds_the_winner_of_the_whole_vocabulary(name: str, spread: float) -> None:
    mark: Choice = make(name)
    scores = torch.randn(40, 5003, generator=torch.Generator().manual_seed(2)) * spread
    scores[::3, 100:5000] = -torch.inf
    keys = keyed_hash.context_keys(KEY, torch.arange(40)[:, None])
    assert torch.equal(mark.winners(scores, keys), mark.among_all(scores, keys))


@drawing
def test_the_short_way_knows_ties_and_masked_rows(name: str) -> None:
    mark: Choice = make(name)
    scores = torch.randint(0, 2, (60, 503), generator=torch.Generator().manual_seed(4)).float() * 4
    scores[0] = -torch.inf
    scores[1, 1:] = -torch.inf
    scores[2, 5:9] = torch.inf
    scores[3, 7] = torch.nan
    keys = keyed_hash.context_keys(KEY, torch.arange(60)[:, None])
    for rows in (slice(4, 60), slice(0, 3), slice(0, 60)):
        assert torch.equal(mark.winners(scores[rows], keys[rows]), mark.among_all(scores[rows], keys[rows]))
    turned = scores.T.contiguous().T
    assert torch.equal(mark.winners(turned, keys), mark.among_all(scores, keys))


def test_a_repeated_context_gets_other_numbers() -> None:
    mark = make("gumbel")
    scores = torch.zeros(1, VOCAB)
    first = mark.process(scores.clone(), past(torch.tensor([[1, 5, 6]]), 3)).argmax()
    again = mark.process(scores.clone(), past(torch.tensor([[1, 5, 6, 5, 6]]), 3)).argmax()
    assert first != again
