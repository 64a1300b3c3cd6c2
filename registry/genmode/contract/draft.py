"""A guess of how rows go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Draft(NamedTuple):
    """A guess behind what each row has become.

    Attributes:
        tokens: `[rows, k]`, long.
        probabilities: `[rows, k, vocab]`, float32: what each token was drawn from, q, given those before it; None where
            the tokens follow from the rows' text. What is passed on is no longer written to.
        counts: `[rows]`, long: how many of its tokens are meant in each row, the others being filling; None for k.
    """

    tokens: Tensor
    probabilities: Tensor | None = None
    counts: Tensor | None = None
