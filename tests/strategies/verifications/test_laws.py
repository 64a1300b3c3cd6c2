"""What text is distributed as under each verification, by enumeration, and how much of a draft each takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.plugins.registry import registry
from genmode_strategies.verifications.block import Block, weights
from genmode_strategies.verifications.cascade import Cascade
from genmode_strategies.verifications.coupling import Coupling
from genmode_strategies.verifications.rejection import Rejection
from genmode_strategies.verifications.typical import Typical

from ..verifications_support import (
    LENGTH,
    VOCAB,
    along,
    drafts,
    expected,
    joint_law,
    outcomes,
    place,
    random_law,
    rest,
)

LOSSLESS: tuple[Any, ...] = (Coupling, Rejection, Block)


def pairs(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Pairs of laws: of any kind, close to each other, with masked tokens, and the same."""
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor]] = []
    for number in range(count):
        p, q = random_law(generator), random_law(generator, 0.5 + number % 3)
        if number % 4 == 1:
            q = (p.log() + 0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype)).softmax(-1)
        if number % 4 == 2:  # a token that the processors forbid, and one that the drafter never draws
            p, q = p.clone(), q.clone()
            p[:, 1], q[:, 2] = 0, 0
            p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
        if number % 4 == 3:
            q = q.argmax(-1, keepdim=True).eq(torch.arange(VOCAB)).to(p.dtype)  # draws nothing
        found.append((p, q))
    return [*found, (found[0][0], found[0][0])]


def test_which_are_lossless() -> None:
    stated = {
        info.name
        for info in registry().components("verifications")
        if genmode.Trait.KEEPS_DISTRIBUTION in registry().get("verifications", info.name).traits
    }
    assert stated == {one.name for one in LOSSLESS}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("verification", LOSSLESS)
def test_texts_are_distributed_as_without_drafts(verification: Any, count: int) -> None:
    for p, q in pairs(12):
        error = (joint_law(verification(), p, q, count) - rest(p, (), count)).abs().max()
        assert float(error) < 1e-12, (p, q)


def test_the_law_notices_a_wrong_rule() -> None:
    class Greedy(Rejection):
        def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
            return p[:, 0]

    p, q = pairs(1)[0]
    assert float((joint_law(Greedy(), p, q) - rest(p, (), LENGTH)).abs().max()) > 0.01


def test_a_block_takes_at_least_what_rejection_takes() -> None:
    gains: list[float] = []
    for p, q in pairs(30, seed=1):
        for count in (1, 2, 3):
            gains.append(expected(Block(), p, q, count) - expected(Rejection(), p, q, count))
            assert gains[-1] > -1e-12
            assert count > 1 or abs(gains[-1]) < 1e-12  # of one token there is no other rule
    assert max(gains) > 0.05


def test_rejection_takes_one_token_with_the_overlap() -> None:
    for p, q in pairs(8):
        overlap = float(torch.minimum(p[0], q[0]).sum())
        assert expected(Rejection(), p, q, 1) == pytest.approx(overlap, abs=1e-12)


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


class TestCascade:
    @pytest.mark.parametrize("rule", ["opt", "chow"])
    @pytest.mark.parametrize("alpha", [-2.0, -0.2, 0.1, 0.4, 1.0, 2.0])
    def test_a_drafted_token_is_distributed_as_the_mixture(self, rule: str, alpha: float) -> None:
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
    def test_the_ends_are_the_model_and_the_drafter(self, rule: str) -> None:
        for p, q in pairs(8):
            kept = q * (p > 0)
            always = Cascade(cascade_rule=rule, cascade_alpha=2.0).mixed(p, q)
            torch.testing.assert_close(always, kept / kept.sum(-1, keepdim=True))
            never = Cascade(cascade_rule=rule, cascade_alpha=-2.0).mixed(p, q)
            torch.testing.assert_close(never, p)

    def test_by_hand(self) -> None:
        p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.4, 0.5, 0.1]])  # TV 0.3, max p - max q = 0.2
        assert torch.equal(Cascade(cascade_alpha=0.6).mixed(p, q), p)
        assert torch.equal(Cascade(cascade_alpha=0.7).mixed(p, q), q)
        assert torch.equal(Cascade(cascade_rule="chow", cascade_alpha=0.4).mixed(p, q), p)
        assert torch.equal(Cascade(cascade_rule="chow", cascade_alpha=0.6).mixed(p, q), q)


class TestTypical:
    def test_by_hand(self) -> None:
        sure = torch.tensor([0.85, 0.10, 0.05])  # entropy 0.518: 0.3 exp(-H) = 0.179, so 0.09 counts
        wide = torch.full((3,), 1 / 3)  # entropy log 3: 0.3 / 3 = 0.1, so 0.09 counts
        p, counts = torch.stack([sure, wide, wide])[None], torch.tensor([2])
        q = p[:, :2]
        for draft, taken in (([0, 1], [1, 1]), ([1, 1], [1, 1]), ([2, 0], [0, 1])):
            assert Typical().accept(p, q, torch.tensor([draft]), counts).tolist() == [taken]
        strict = Typical(typical_epsilon=0.5, typical_delta=1.0)
        assert strict.accept(p, q, torch.tensor([[1, 0]]), counts).tolist()[0][0] == 0
        assert torch.equal(Typical().behind(p, q, torch.tensor([[2, 0]]), counts, torch.tensor([1])), p[:, 1])


def test_nothing_is_left_where_both_say_the_same() -> None:
    """By rounding a token may be refused that both laws agree on: the model's law stands in."""
    p = torch.full((1, 2, VOCAB), 0.25)
    for verification in (Rejection(), Block(), Cascade()):
        left = verification.behind(p, p[:, :1], torch.tensor([[0]]), torch.tensor([1]), torch.tensor([0]))
        assert torch.equal(left, p[:, 0])


def test_places_of_texts() -> None:
    assert [place(text) for text in ((), (0,), (3,), (0, 0), (3, 3))] == [0, 1, 4, 5, 20]
