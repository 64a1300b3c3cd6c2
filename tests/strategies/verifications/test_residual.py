"""What all verifications share: filling counts for nothing, and nothing may be left."""

from __future__ import annotations

import torch

from genmode_strategies.verifications.block import Block
from genmode_strategies.verifications.cascade import Cascade
from genmode_strategies.verifications.coupling import Coupling
from genmode_strategies.verifications.rejection import Rejection
from genmode_strategies.verifications.typical import Typical

from ..verifications_support import LENGTH, VOCAB, along, drafts, pairs


def test_filling_counts_for_nothing() -> None:
    p, q = pairs(1)[0]
    texts = drafts()
    ps, qs, tokens = along(p, texts, LENGTH + 1), along(q, texts, LENGTH), torch.tensor(texts)
    counts, other = torch.full((len(texts),), 2), (tokens + torch.tensor([0, 0, 1])) % VOCAB
    for verification in (Coupling(), Rejection(), Block(), Typical(), Cascade()):
        first = verification.accept(ps, qs, tokens, counts)[:, :2]
        assert torch.equal(first, verification.accept(ps, qs, other, counts)[:, :2])
        short = verification.accept(ps[:, :3], qs[:, :2], tokens[:, :2], counts)
        torch.testing.assert_close(first.clamp(max=1), short.clamp(max=1))


def test_nothing_is_left_where_both_say_the_same() -> None:
    """By rounding a token may be refused that both laws agree on: the model's law stands in."""
    p = torch.full((1, 2, VOCAB), 0.25)
    for verification in (Rejection(), Block(), Cascade()):
        left = verification.behind(p, p[:, :1], torch.tensor([[0]]), torch.tensor([1]), torch.tensor([0]))
        assert torch.equal(left, p[:, 0])
