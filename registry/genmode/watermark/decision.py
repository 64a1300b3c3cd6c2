"""From evidence to decisions.

Tokens that read the same draw of the key are counted once, the rest are added up, and the exact tail of the evidence's
distribution in text without the mark gives the p-value; a text is marked where it is at most `fpr`. With `window=` the text
is read in overlapping windows as well, p is the least of theirs times their number (Bonferroni), and the passage is where
windows agree.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contract import Detection, Evidence, Null, Trait, Watermarker
from ..errors import ParameterError

FEW = 20
"""Where fewer tokens count, the note of a text without a mark says so."""


def judge(
    mark: Watermarker, tokens: Tensor, statistic: Tensor | None = None, fpr: float = 0.01, window: int | None = None
) -> list[Detection]:
    """What is found in texts that are tensors.

    Args:
        mark: the watermarker.
        tokens: `[texts, length]`, long; negative ids are padding, behind the text.
        statistic: `[texts, length]`, float32: what `Watermarker.statistic` makes of the prediction of each token, NaN
            where there is none; for schemes that read the model.
        fpr: the share of unmarked texts that may be taken for marked.
        window: as for `genmode.detect`.

    Raises:
        ParameterError: the scheme reads the model's predictions, and `statistic` is None.
    """
    if Trait.READS_MODEL in mark.traits and statistic is None:
        raise ParameterError(
            f"watermarker {mark.name!r} is read with the model's predictions; call genmode.detect(..., model=model)"
        )
    lengths = (tokens >= 0).sum(1).tolist()
    if tokens.shape[1]:
        values, draws, weights = (None if x is None else x.cpu() for x in mark.evidence(tokens, statistic))
    else:
        values, draws, weights = tokens.double(), tokens, None  # nothing to ask a scheme about
    if values is None or draws is None:
        raise ParameterError(f"watermarker {mark.name!r} gave no evidence")
    null = mark.null()
    found: list[Detection] = []
    for text, length in enumerate(lengths):
        one = Evidence(
            values[text, :length].double(), draws[text, :length],
            None if weights is None else weights[text, :length].double(),
        )  # fmt: skip
        found.append(_judge_text(one, null, fpr, window))
    return found


def _judge_text(evidence: Evidence, null: Null, fpr: float, window: int | None) -> Detection:
    values, draws, weights = evidence
    counted = first_of_each(draws, ~values.isnan())
    deviation = math.sqrt(null.variance)
    shown = tuple(
        (value - null.mean) / deviation if use else None
        for value, use in zip(values.tolist(), counted.tolist(), strict=True)
    )
    spans = [(0, len(values))]
    if window is not None and len(values) > window:
        stride = max(1, window // 4)
        starts = [*range(0, len(values) - window, stride), len(values) - window]
        spans = [(start, start + window) for start in starts]
    tails = [_tail(null, values, weights, counted, span) for span in spans]
    best = min(range(len(spans)), key=lambda i: tails[i])
    p_value = min(1.0, tails[best] * len(spans))
    begin, end = spans[best]
    used = counted[begin:end].nonzero()[:, 0] + begin
    least = min(1.0, (null.least(len(used)) if len(used) else 1.0) * len(spans))
    passage = None
    if window is not None and p_value <= fpr:
        low, high = best, best
        while low > 0 and tails[low - 1] * len(spans) <= fpr:
            low -= 1
        while high + 1 < len(spans) and tails[high + 1] * len(spans) <= fpr:
            high += 1
        passage = (spans[low][0], spans[high][1])
    note = ""
    if least > fpr:
        note = (
            f"too short: {len(used)} tokens count, and even if all spoke for the mark, p would be {least:.2g} "
            f"and not {fpr:g}"
        )
    elif p_value > fpr:
        note = "no mark of this key and scheme; another key, tokenizer or model reads as no mark too"
        if len(used) < FEW:
            note += f"; {len(used)} tokens that count are few: marked text of that length is often missed"
    return Detection(
        score=_z(null, values[used], None if weights is None else weights[used]), p_value=p_value,
        tokens=len(used), marked=None if least > fpr else p_value <= fpr, fpr=fpr, evidence=shown, passage=passage,
        note=note,
    )  # fmt: skip


def first_of_each(draws: Tensor, there: Tensor) -> Tensor:
    """Which of `draws` `[length]` come for the first time among those that are `there`: `[length]`, bool."""
    seen: set[int] = set()
    fresh: list[bool] = []
    for draw, use in zip(draws.tolist(), there.tolist(), strict=True):
        fresh.append(use and draw not in seen)
        if use:
            seen.add(draw)
    return torch.tensor(fresh, dtype=torch.bool)


def _tail(null: Null, values: Tensor, weights: Tensor | None, counted: Tensor, span: tuple[int, int]) -> float:
    used = counted[span[0] : span[1]].nonzero()[:, 0] + span[0]
    return null.tail(values[used], None if weights is None else weights[used]) if len(used) else 1.0


def _z(null: Null, values: Tensor, weights: Tensor | None) -> float:
    if not len(values):
        return 0.0
    weights = torch.ones_like(values) if weights is None else weights
    spread = math.sqrt(null.variance * float(weights.square().sum()))
    return float((weights * (values - null.mean)).sum()) / spread if spread > 0 else 0.0
