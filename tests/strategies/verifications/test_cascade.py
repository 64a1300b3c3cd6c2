"""Cascades: the law of a drafted token, and both ends of alpha."""

from __future__ import annotations

import pytest
import torch

from genmode_strategies.verifications.cascade import Cascade

from ..verifications_support import LENGTH, VOCAB, outcomes, pairs, rest


@pytest.mark.parametrize("rule", ["opt", "chow"])
@pytest.mark.parametrize("alpha", [-2.0, -0.2, 0.1, 0.4, 1.0, 2.0])
def test_a_drafted_token_is_distributed_as_the_mixture(rule: str, alpha: float) -> None:
    cascade = Cascade(cascade_rule=rule, cascade_alpha=alpha)
    for p, q in pairs(8, seed=2):
        mixed = cascade.mixed(p, q)
        law = torch.zeros(VOCAB**LENGTH, dtype=torch.float64)  # of the first tokens, what follows by the mixture
        for text, taken, chances in outcomes(cascade, p, q, LENGTH):
            if taken == LENGTH:
                index = int("".join(map(str, text)), VOCAB)
                law[index] += chances.sum()
                continue
            for token in range(VOCAB):
                begun = (*text[:taken], token)
                size = VOCAB ** (LENGTH - len(begun))
                first = int("".join(map(str, begun)), VOCAB) * size
                law[first : first + size] += chances[token] * rest(mixed, begun, LENGTH - 1)
        assert float((law - rest(mixed, (), LENGTH - 1)).abs().max()) < 1e-12


@pytest.mark.parametrize("rule", ["opt", "chow"])
def test_the_ends_are_the_model_and_the_drafter(rule: str) -> None:
    for p, q in pairs(8):
        kept = q * (p > 0)
        always = Cascade(cascade_rule=rule, cascade_alpha=2.0).mixed(p, q)
        torch.testing.assert_close(always, kept / kept.sum(-1, keepdim=True))
        never = Cascade(cascade_rule=rule, cascade_alpha=-2.0).mixed(p, q)
        torch.testing.assert_close(never, p)


def test_by_hand() -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.4, 0.5, 0.1]])  # TV 0.3, max p - max q = 0.2
    assert torch.equal(Cascade(cascade_alpha=0.6).mixed(p, q), p)
    assert torch.equal(Cascade(cascade_alpha=0.7).mixed(p, q), q)
    assert torch.equal(Cascade(cascade_rule="chow", cascade_alpha=0.4).mixed(p, q), p)
    assert torch.equal(Cascade(cascade_rule="chow", cascade_alpha=0.6).mixed(p, q), q)
