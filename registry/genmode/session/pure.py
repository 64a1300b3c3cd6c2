"""Chains of processors that are functions of the scores alone, and what a step computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import candidates
from ..contract import LogitsProcessor
from ..errors import DecodingError
from ..selection import first_best
from .history import History
from .random import SeededNoise


class Pure:
    """Pure processors in order; equal to another of the same classes and parameters.

    Args:
        processors: the chain.
        tail: where its fused end begins, see `genmode.candidates.narrowing`.
        key: what tells it from others.
    """

    def __init__(self, processors: Sequence[LogitsProcessor], tail: int, key: tuple[Any, ...]) -> None:
        self.head, self.tail, self.key = list(processors[:tail]), list(processors[tail:]), key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def pure_chain(processors: Sequence[LogitsProcessor], tail: int) -> Pure | None:
    """The chain if all of it is pure and can be told from others; else None."""
    if not all(one.pure for one in processors):
        return None
    key = tuple((type(one), *sorted(vars(one).items())) for one in processors)
    try:
        hash(key)
    except TypeError:  # a parameter that has no hash
        return None
    return Pure(processors, tail, key)


def processed(logits: Tensor, chain: Pure) -> Tensor:
    """Scores after all processors: `[rows, vocab]`, float32."""
    return _run([*chain.head, *chain.tail], logits.clone()) if chain.key else logits


def log_processed(logits: Tensor, chain: Pure) -> Tensor:
    """The same on log-probabilities."""
    return _run([*chain.head, *chain.tail], logits.log_softmax(-1))


def best_processed(logits: Tensor, chain: Pure) -> Tensor:
    """The token with the highest score in each row: `[rows]`, long."""
    return first_best(processed(logits, chain))


def drawn(logits: Tensor, chain: Pure) -> Tensor:
    """A token for each row, `[rows]`, long, with noise of torch's generator."""
    return _draw(logits, chain, candidates.GeneratorNoise())


def drawn_for_seeds(logits: Tensor, keys: Tensor, decoded: Tensor, chain: Pure) -> Tensor:
    """The same with the noise of rows with the seeds `keys` that have decoded so many tokens, `[rows]`, long, each."""
    noise = SeededNoise(keys)
    noise.decoded = decoded
    return _draw(logits, chain, noise)


def _draw(logits: Tensor, chain: Pure, noise: Any) -> Tensor:
    scores = _run(chain.head, logits.clone()) if chain.key else logits
    return candidates.draw(chain.tail, scores, _NOTHING, noise)


def _run(processors: Sequence[LogitsProcessor], scores: Tensor) -> Tensor:
    for one in processors:
        try:
            scores = one.process(scores, _NOTHING)
        except Exception as error:
            raise DecodingError(
                f"processor {one.name!r} failed in process: {type(error).__name__}: {error}", component=one.name
            ) from error
    return scores


_NOTHING = History(torch.empty(0, 0, dtype=torch.long), None, torch.empty(0, dtype=torch.long), 0, 0)
"""What a pure processor is given for the tokens so far."""
