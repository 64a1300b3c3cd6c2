"""What the processors that drop tokens have in common."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

import genmode
from genmode.sampling import Candidates, highest

_One = TypeVar("_One", bound="Truncation")


class Truncation(genmode.LogitsProcessor):
    """A processor that drops tokens by the scores of the row alone.

    Attributes:
        min_tokens_to_keep: the best tokens that always stay. transformers sets it above 1 for beams; it is no
            key of a config.
        reach: see `genmode.sampling.Narrowing`.
    """

    contract_version = 1
    stage: ClassVar[genmode.Stage] = genmode.Stage.TRUNCATION
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.PURE})

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.min_tokens_to_keep = 1

    @property
    def reach(self) -> int | None:
        """None: works on candidates that others left."""
        return None

    def redo(self, scores: Tensor, rows: Tensor, history: genmode.History) -> Tensor:
        """`process` for some rows; the rule is the same for each row."""
        return self.process(scores, history)


def adopted(cls: type[_One], theirs: Any, **values: Any) -> _One | None:
    """The equal of transformers' object `theirs`; None where it fills dropped tokens with a finite value."""
    if theirs.filter_value != -torch.inf:
        return None
    ours = cls(**values)
    ours.min_tokens_to_keep = getattr(theirs, "min_tokens_to_keep", 1)
    return ours


def without(scores: Tensor, dropped: Tensor) -> Tensor:
    """`scores` with -inf where `dropped` is true; a new tensor."""
    return torch.where(dropped, -torch.inf, scores)  # masked_fill copies on a device, and mispredicts on a CPU


def entropy_of(shares: Tensor) -> Tensor:
    """-sum p log p of probabilities `[rows, k]`, in nats, `[rows, 1]`; 0 in a row of NaN."""
    return torch.xlogy(shares, shares).nansum(-1, keepdim=True).neg()


def exempt(kept: Tensor, doubt: Tensor | None, free: Tensor) -> tuple[Tensor, Tensor | None]:
    """`kept` and `doubt` of `Candidates.cut` where the candidates in `free` stay for certain."""
    return kept | free, None if doubt is None else doubt & ~free


def ranks(candidates: Candidates) -> Tensor:
    """1 for a row's best candidate, 2 for the next, and so on, `[rows, k]`, long; dropped ones do not count."""
    return candidates.alive.cumsum(-1)


def kth_of(scores: Tensor, k: int) -> Tensor:
    """The k-th highest score of each row, or the lowest if there are fewer, `[rows, 1]`."""
    return highest(scores, min(k, scores.shape[-1]))[0][:, -1:]
