"""Texts that a scheme marks, and their evidence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genmode

from .marks_support import past

VOCAB = 100


def drawn_text(mark: Any, rows: int, length: int, temperature: float = 1.0) -> Tensor:
    """Text of a toy model whose predictions depend on the last token: `[rows, length]`, behind a prompt of 6."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(9)) * 1.5
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, VOCAB, (rows, 6), generator=generator)
    for _ in range(length):
        scores = mark.process(table[ids[:, -1]] / temperature, past(ids, 6))
        ids = torch.cat([ids, torch.multinomial(scores.softmax(-1), 1, generator=generator)], 1)
    return ids[:, 6:]


def statistic_of(mark: Any, text: Tensor) -> Tensor | None:
    """What the toy model says of each token of a text."""
    if genmode.Trait.READS_MODEL not in mark.traits:
        return None
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(9)) * 1.5
    statistic = torch.full(text.shape, torch.nan)
    for row, tokens in enumerate(text):
        statistic[row, 1:] = mark.statistic(table[tokens[:-1]])
    return statistic
