"""The contract of watermarkers: a mark, the evidence for it, and what a detector says."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import pydantic

from .processor import LogitsProcessor, Stage

if TYPE_CHECKING:
    from torch import Tensor


class Detection(pydantic.BaseModel):
    """What a detector says of one text."""

    model_config = pydantic.ConfigDict(frozen=True)

    score: float
    """By how many standard deviations the evidence exceeds that of text without the mark (a z-score)."""
    p_value: float
    """Probability of evidence at least this strong in text without the mark; between 0 and 1."""
    tokens: int
    """How many tokens were counted; those whose evidence is the same draw of the key count once."""
    marked: bool | None = None
    """Whether `p_value` is at most `fpr`; None where so few tokens cannot tell."""
    fpr: float = 0.01
    """The false-positive rate of the decision."""
    evidence: tuple[float | None, ...] = ()
    """Of each token of the text, by how many standard deviations it speaks for the mark; None if not counted."""
    passage: tuple[int, int] | None = None
    """Of windowed detection, the tokens `[from, to)` that are marked; None if none are."""
    note: str = ""
    """What limits the answer: a short text, a key or tokenizer that does not fit."""


class Evidence(NamedTuple):
    """What the tokens of some texts say for a mark; three tensors `[texts, length]`, on the CPU or a device."""

    values: Tensor
    """float64; each token's evidence, the higher the more; NaN where a token says nothing (no context, padding)."""
    draws: Tensor
    """int64; equal where two tokens of a text read the same draw of the key, which is then counted once."""
    weights: Tensor | None = None
    """float64, not negative: the statistic is the sum of weights times values. None for ones."""


class Null(Protocol):
    """The distribution of the evidence in text without the mark, in which counted tokens are independent.

    `genmode.watermark.null_distributions` has the usual ones.
    """

    mean: float
    """Of one token's value."""
    variance: float
    """Of one token's value."""

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        """P(sum of weights times values is at least what `values` `[n]`, float64, gives)."""
        ...

    def least(self, count: int) -> float:
        """The smallest `tail` that `count` tokens can have."""
        ...


class Watermarker(LogitsProcessor):
    """A processor that marks text, and the detector that reads the mark, as one component.

    A scheme states what each token says for the mark and how that is distributed without one; padding,
    repeated draws, windows and the decision are the host's (`genmode.detect`).

    It acts only where the call or a config names it: a parameter of its own does not switch it on.
    """

    stage: ClassVar[Stage] = Stage.WATERMARK

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> Evidence:
        """What each token says for the mark.

        Args:
            tokens: `[texts, length]`, long; negative ids are padding, behind the text.
            statistic: `[texts, length]`, what `statistic` made of the logits that each token was predicted by, NaN for
                the first; None unless `Trait.READS_MODEL` is stated.
        """
        raise TypeError(f"{type(self).__name__} must define evidence(tokens, statistic)")

    def statistic(self, logits: Tensor) -> Tensor:
        """One number of each prediction `[n, vocab]`, float32, that `evidence` needs: `[n]`."""
        raise TypeError(f"{type(self).__name__} must define statistic(logits)")

    def null(self) -> Null:
        """The evidence's distribution in text without the mark."""
        raise TypeError(f"{type(self).__name__} must define null()")
