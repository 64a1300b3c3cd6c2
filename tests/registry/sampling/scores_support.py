"""Scores of many kinds: with ties, masked, sorted."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ["normal", "ties", "masked", "equal", "one end"]


def scores_of(kind: str, rows: int, vocab: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows * vocab)
    scores = torch.randn(rows, vocab, generator=generator)
    if kind == "ties":
        scores = scores.round()
    elif kind == "masked":
        scores = scores.masked_fill(torch.rand(rows, vocab, generator=generator) < 0.99, -torch.inf)
    elif kind == "equal":
        scores = torch.zeros_like(scores)
    elif kind == "one end":
        scores = scores.sort(-1).values
    return scores
