"""Checks of verifications: the law of what they take, by enumeration on a vocabulary of four with drafts of three."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ...contract import Kind, Trait
from ..harness.case import Case
from ..harness.check import check, inapplicable, require
from .drafts import GREEDY, SAMPLED, inputs

VOCAB, LENGTH = 4, 3
TOLERANCE = 1e-6
DRAFTS = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
"""Every draft: `[64, 3]`."""


def laws(number: int) -> tuple[Tensor, Tensor]:
    """Two distributions of the next token behind each beginning of each draft, float64: `[64, 4, VOCAB]`, twice.

    Of five numbers one has tokens that one of the two never takes, and one a drafter that draws nothing.
    """
    generator = torch.Generator().manual_seed(number)
    beginnings = [LENGTH + 1, *[VOCAB] * LENGTH]
    whole = (2 * torch.randn([2, *beginnings, VOCAB], generator=generator, dtype=torch.float64)).softmax(-1)
    found: list[Tensor] = []
    for law in whole:
        before = [DRAFTS * (torch.arange(LENGTH) < i) for i in range(LENGTH + 1)]  # the first i tokens, and nothing
        along = [law[i, one[:, 0], one[:, 1], one[:, 2]] for i, one in enumerate(before)]
        found.append(torch.stack(along, dim=1))
    p, q = found
    if number % 5 == 3:
        p, q = p.clone(), q.clone()
        p[..., 1], q[..., 2] = 0, 0
        p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    if number % 5 == 4:
        q = torch.nn.functional.one_hot(q.argmax(-1), VOCAB).to(q.dtype)
    return p, q


def said(case: Case, p: Tensor, q: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How probable it is that each number of tokens is taken, `[64, 4]`, and what is drawn behind, `[64, 4, VOCAB]`."""
    made: Any = case.make()
    counts = torch.full((len(DRAFTS),), count)
    accepted = made.accept(p, q[:, :LENGTH], DRAFTS, counts).clamp(max=1)
    accepted = torch.cat([accepted[:, :count], torch.zeros(len(DRAFTS), LENGTH + 1 - count, dtype=p.dtype)], dim=1)
    reached = torch.cat([torch.ones_like(accepted[:, :1]), accepted[:, :-1].cumprod(1)], dim=1)
    behind = [made.behind(p, q[:, :LENGTH], DRAFTS, counts, counts.clamp(max=n)) for n in range(LENGTH + 1)]
    weights = torch.stack(behind, dim=1)
    taken, weights = reached * (1 - accepted), weights / weights.sum(-1, keepdim=True)
    drawn = possible(q, count)[:, None] > 0  # of a draft that is never drawn anything may be said
    return torch.where(drawn, taken, 0.0), torch.where(drawn[:, None] & weights.isfinite(), weights, 0.0)


def possible(q: Tensor, count: int = LENGTH) -> Tensor:
    """How probable the first `count` tokens of each draft are: `[64]`."""
    return q[:, :count].gather(2, DRAFTS[:, :count, None])[:, :, 0].prod(1)


@check(Kind.VERIFICATIONS)
def says_probabilities(case: Case) -> None:
    """`accept` gives numbers from 0 on, `[rows, k]`, `behind` weights `[rows, vocab]`, and neither writes what it gets."""
    made: Any = case.make()
    for number in range(5):
        p, q = (law.float() for law in laws(number))
        q = q[:, :LENGTH]
        counts = torch.full((len(DRAFTS),), LENGTH)
        given = (p, q, DRAFTS.clone(), counts)
        kept = [one.clone() for one in given]
        accepted = made.accept(*given)
        drafted = possible(q) > 0
        require(accepted.shape == DRAFTS.shape, f"accept gave {tuple(accepted.shape)} for {tuple(DRAFTS.shape)} tokens")
        require(bool((accepted[drafted] >= 0).all()), "accept gave what is no probability: below 0, or NaN")
        for taken in range(LENGTH + 1):
            weights = made.behind(*given, torch.full_like(counts, taken))
            require(
                weights.shape == (len(DRAFTS), VOCAB), f"behind gave {tuple(weights.shape)}; [rows, vocab] is wanted"
            )
            sound = weights.isfinite().all(-1) & (weights >= 0).all(-1) & (weights.sum(-1) > 0)
            require(bool(sound[drafted].all()), "behind gave weights that nothing can be drawn from")
        same = all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
        require(same, "it writes into what it is given; make tensors of its own")


@check(Kind.VERIFICATIONS)
def masked_tokens_refused(case: Case) -> None:
    """A token that the processors mask, p(x) = 0, is neither taken from a draft nor drawn behind one."""
    p, q = laws(3)
    taken, weights = said(case, p, q, LENGTH)
    reached = (possible(q) > 0)[:, None] & (taken.flip(1).cumsum(1).flip(1) > 0)
    masked = p[:, :LENGTH].gather(2, DRAFTS[:, :, None])[:, :, 0] == 0
    beyond = taken.flip(1).cumsum(1).flip(1)[:, 1:]  # that so many or more are taken
    require(not bool(((beyond > 0) & masked & (possible(q) > 0)[:, None]).any()), "it takes a token that is masked")
    drawn = (weights * (p == 0)).sum(-1)
    require(not bool(((drawn > 0) & reached & (taken > 0)).any()), "it draws a token that is masked")


@check(Kind.VERIFICATIONS)
def keeps_the_law(case: Case) -> str:
    """With `Trait.KEEPS_DISTRIBUTION` every text is as probable as without drafts, by enumeration, whatever p and q are."""
    if Trait.KEEPS_DISTRIBUTION not in case.component.traits:
        inapplicable("it does not state Trait.KEEPS_DISTRIBUTION")
    worst = 0.0
    for number, count in itertools.product(range(10), range(1, LENGTH + 1)):
        p, q = laws(number)
        wrong = float((law_of_texts(case, p, q, count) - law_of_texts(case, p, p, 0)).abs().max())
        worst = max(worst, wrong)
        require(
            wrong < TOLERANCE,
            f"a text of three tokens is more or less probable by {wrong:.2g}, with drafts of {count}: it changes the "
            "distribution; correct accept and behind, or leave the trait out",
        )
    return f"texts as probable as without drafts up to {worst:.1g}"


def law_of_texts(case: Case, p: Tensor, q: Tensor, count: int) -> Tensor:
    """How probable each of the 64 texts of three tokens is, if what one step does not take is decoded by p."""
    alone = p[:, :LENGTH].gather(2, DRAFTS[:, :, None])[:, :, 0]  # [64, 3]: of each token behind those before it
    if count == 0:
        return alone.prod(1)
    taken, weights = said(case, p, q, count)
    drawn = possible(q, count) / VOCAB ** (LENGTH - count)  # each stands for so many that differ in their filling alone
    law = torch.zeros(len(DRAFTS), dtype=p.dtype)
    for number in range(min(count, LENGTH - 1) + 1):
        chance = drawn[:, None] * taken[:, number, None] * weights[:, number]  # [drafts, token behind]
        begun = (DRAFTS[:, None, :number] == DRAFTS[None, :, :number]).all(-1)  # [drafts, texts]
        here = chance[:, DRAFTS[:, number]]
        law = law + (begun * here).sum(0) * alone[:, number + 1 :].prod(1)
    if count == LENGTH:
        law = law + drawn * taken[:, LENGTH]
    return law


@check(Kind.VERIFICATIONS)
def filling_ignored(case: Case) -> None:
    """What stands behind a row's own draft is filling, which changes nothing of what is taken."""
    made: Any = case.make()
    p, q = laws(0)
    q, counts = q[:, :LENGTH], torch.full((len(DRAFTS),), 2)
    other = (DRAFTS + torch.tensor([0, 0, 1])) % VOCAB
    gap = made.accept(p, q, DRAFTS, counts)[:, :2] - made.accept(p, q, other, counts)[:, :2]
    require(float(gap.abs().max()) < TOLERANCE, "accept looks at tokens that the row's draft does not have; see counts")


@check(Kind.VERIFICATIONS)
def rows_by_themselves(case: Case) -> None:
    """What is said of a row does not depend on the rows beside it."""
    made: Any = case.make()
    p, q = laws(1)
    given = (p, q[:, :LENGTH], DRAFTS, torch.full((len(DRAFTS),), LENGTH))
    taken = torch.arange(len(DRAFTS)) % (LENGTH + 1)
    rows = slice(5, 6)
    alone = [one[rows] for one in given]
    same = torch.allclose(made.accept(*given)[rows], made.accept(*alone))
    same = same and torch.allclose(made.behind(*given, taken)[rows], made.behind(*alone, taken[rows]))
    require(same, "a row alone is verified otherwise than among others")


@check(Kind.VERIFICATIONS)
def verified_greedy_text_unchanged(case: Case) -> None:
    """Greedy search takes the most probable token, whatever verification the call names."""
    plain = case.generate(inputs(), **GREEDY, draft=None, verify=None)
    require(torch.equal(plain, case.generate(inputs(), **GREEDY)), "greedy search gives another text")


@check(Kind.VERIFICATIONS)
def seeds_count(case: Case) -> None:
    """Under `seed=` a call gives the same text again and draws nothing from torch's generator."""
    state = torch.get_rng_state()
    first, again = (case.generate(inputs(), **SAMPLED, seed=3) for _ in range(2))
    require(torch.equal(first, again), "the same seed gives another text")
    require(torch.equal(torch.get_rng_state(), state), "it draws from torch's generator; use session.uniform()")
