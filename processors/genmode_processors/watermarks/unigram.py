"""Unigram (Zhao, Ananth, Li and Wang 2023, "Provable Robust Watermarking for AI-Generated Text").

The green list is one for the whole text (algorithm 1): `green.py` with no context. Detection (algorithm 2)
counts each distinct token once: a text that repeats one token says no more than one that has it once, and
counting all occurrences makes the false-positive rate depend on which common words a key happens to favour.
The null is therefore exact over keys: a binomial of the number of distinct tokens.
"""

from __future__ import annotations

from torch import Tensor

import genmode

from . import keyed_hash
from .green import Greens


class Unigram(Greens):
    """One green list for all positions: the most robust to edits, and the easiest to learn from text.

    Stage watermark; writes in place; `[rows, vocab]`, float32; reads no history.
    """

    contract_version = 1
    name = "unigram"
    paper = "Zhao et al. 2023, https://arxiv.org/abs/2306.17439"

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._green is None or self._green.shape[1] != scores.shape[1]:
            keys = keyed_hash.context_keys(self.key, history.tokens.new_zeros(1, 0))
            return self.favour(scores, keyed_hash.octets(keys, scores.shape[1]), None)
        return scores.add_(self._green, alpha=self.params.bias)
