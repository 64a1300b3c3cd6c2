"""Laws of verifications, computed exactly: every draft, every number of tokens taken, every token behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

VOCAB, LENGTH = 4, 3
"""Texts of up to four tokens over a vocabulary of four, drafts of three."""


def random_law(generator: torch.Generator, sharp: float = 2.0) -> Tensor:
    """A distribution of the next token behind each text of fewer than `LENGTH + 1` tokens, float64: `[texts, VOCAB]`."""
    texts = sum(VOCAB**n for n in range(LENGTH + 1))
    return (sharp * torch.randn(texts, VOCAB, generator=generator, dtype=torch.float64)).softmax(-1)


def place(text: tuple[int, ...]) -> int:
    """Which row of a law is that behind this text."""
    number = 0
    for token in text:
        number = number * VOCAB + token
    return sum(VOCAB**n for n in range(len(text))) + number


def drafts() -> list[tuple[int, ...]]:
    return list(itertools.product(range(VOCAB), repeat=LENGTH))


def along(law: Tensor, texts: list[tuple[int, ...]], count: int) -> Tensor:
    """The distributions at the first `count` positions of each text: `[texts, count, VOCAB]`."""
    return torch.stack([torch.stack([law[place(text[:i])] for i in range(count)]) for text in texts])


def outcomes(verification: Any, p: Tensor, q: Tensor, count: int) -> Iterator[tuple[tuple[int, ...], int, Tensor]]:
    """Each draft and how many of its tokens are taken, with the probability of each token behind them, `[VOCAB]`.

    Args:
        p, q: laws of `random_law`.
        count: how many tokens the drafts have; what follows is filling.
    """
    texts = drafts()
    ps, qs, tokens = along(p, texts, LENGTH + 1), along(q, texts, LENGTH), torch.tensor(texts)
    counts = torch.full((len(texts),), count)
    drawn = qs.gather(2, tokens[:, :, None])[:, :, 0].prod(1)  # of the whole draft, its filling summed out
    accepted = verification.accept(ps, qs, tokens, counts).clamp(max=1)
    for taken in range(count + 1):
        weights = verification.behind(ps, qs, tokens, counts, torch.full_like(counts, taken))
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)
        chance = drawn * accepted[:, :taken].prod(1)
        if taken < count:
            chance = chance * (1 - accepted[:, taken])
        for text, one, last in zip(texts, chance, weights, strict=True):
            if one > 0:
                yield text, taken, one * last


def joint_law(verification: Any, p: Tensor, q: Tensor, count: int = LENGTH) -> Tensor:
    """Of texts of `count + 1` tokens, if what the step does not take is decoded by p: `[VOCAB ** (count + 1)]`."""
    law = torch.zeros(VOCAB ** (count + 1), dtype=torch.float64)
    for text, taken, weights in outcomes(verification, p, q, count):
        for token in range(VOCAB):
            if weights[token] > 0:
                begun = (*text[:taken], token)
                law[span(begun, count)] += weights[token] * rest(p, begun, count)
    return law


def span(begun: tuple[int, ...], count: int) -> slice:
    """Which texts of `count + 1` tokens begin so."""
    size = VOCAB ** (count + 1 - len(begun))
    first = 0
    for token in begun:
        first = first * VOCAB + token
    return slice(first * size, (first + 1) * size)


def rest(law: Tensor, begun: tuple[int, ...], count: int) -> Tensor:
    """How probable each text of `count + 1` tokens is that begins so, given that it does."""
    probabilities = torch.ones(1, dtype=torch.float64)
    texts: list[tuple[int, ...]] = [begun]
    while len(texts[0]) <= count:
        probabilities = torch.cat([one * law[place(text)] for one, text in zip(probabilities, texts, strict=True)])
        texts = [(*text, token) for text in texts for token in range(VOCAB)]
    return probabilities


def expected(verification: Any, p: Tensor, q: Tensor, count: int = LENGTH) -> float:
    """How many tokens of a draft are taken on average."""
    return sum(taken * float(weights.sum()) for _, taken, weights in outcomes(verification, p, q, count))


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
