"""Chains of processors that are functions of the scores alone, and what a step computes with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..contract.history import History
from ..contract.traits import Trait
from ..sampling import candidates
from ..sampling.selection import first_best, log_softmax
from .links import Line
from .noise import SeededNoise


class PureChain:
    """A line of pure processors; equal to another of the same classes and parameters.

    Args:
        line: the processors.
        key: what tells it from others.
    """

    def __init__(self, line: Line, key: tuple[Any, ...]) -> None:
        self.line, self.key = line, key

    def __call__(self, values: Tensor) -> Tensor:
        """What the processors make of `values` `[rows, vocab]`, floating point, which stay as they are: float32."""
        values = values.to(torch.float32, copy=bool(self.key))
        return self.line.process(values, _NOTHING) if self.key else values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PureChain) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def pure_chain(line: Line) -> PureChain | None:
    """The line if all of it is pure and can be told from others; else None."""
    processors = [one.processor for one in line.links]
    if not all(Trait.PURE in one.traits for one in processors):
        return None
    key = tuple((type(one), *sorted(vars(one).items())) for one in processors)
    try:
        hash(key)
    except TypeError:  # a parameter that has no hash
        return None
    return PureChain(line, key)


def log_processed(logits: Tensor, pure: PureChain) -> Tensor:
    """Log-probabilities after all processors: `[rows, vocab]`, float32; of logits of any floating dtype, as all here."""
    return pure.line.process(log_softmax(logits), _NOTHING)


def best_processed(logits: Tensor, pure: PureChain) -> tuple[Tensor, Tensor | None]:
    """The token with the highest score in each row, `[rows]`, long, and the scores if they are not the logits."""
    if not pure.key:
        return first_best(logits), None
    scores = pure(logits)
    return first_best(scores), scores


def drawn(logits: Tensor, pure: PureChain) -> tuple[Tensor, Tensor | None]:
    """A token for each row, `[rows]`, long, with noise of torch's generator, and the scores if they are not the logits.

    The scores are those before the end of the chain, which masks no row wholly.
    """
    return _draw(logits, pure, candidates.GeneratorNoise())


def drawn_for_seeds(
    logits: Tensor, keys: Tensor, decoded: Tensor, pure: PureChain
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The same with the noise of rows with the seeds `keys` that have decoded so many tokens, `[rows]`, long, each."""
    noise = SeededNoise(keys)
    noise.decoded = decoded
    return _draw(logits, pure, noise)


def _draw(logits: Tensor, pure: PureChain, noise: Any) -> tuple[Tensor, Tensor | None]:
    scores = logits.to(torch.float32, copy=True)
    scores = pure.line.process(scores, _NOTHING, head=True) if pure.key else scores
    return candidates.draw(pure.line.tail, scores, _NOTHING, noise), scores if pure.key else None


_NOTHING = History(torch.empty(0, 0, dtype=torch.long), None, torch.empty(0, dtype=torch.long), 0, 0)
"""What a pure processor is given for the tokens so far."""
