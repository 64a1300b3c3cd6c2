"""The permute-and-flip watermark (Zhao, Li and Wang 2024, "Permute-and-Flip", algorithms 2 and 3).

    winner = argmax over v of score[v] - log(1 - r(v))

that is, report noisy max with exponential noise, whose winner is distributed as permute-and-flip sampling of the
scores: go through the tokens in random order and take v with probability exp(score[v] - max score). This is not
softmax sampling but a decoder of its own, nearer to the best token. The evidence of a token is -log(1 - r); without
the mark it is Exp(1), and the sum over n contexts is exactly Erlang(n). See `choice` for contexts that repeat.
"""

from __future__ import annotations

from torch import Tensor

from .choice import Choice


class PermuteAndFlip(Choice):
    """Permute-and-flip with the key's noise. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "permute_and_flip"
    paper = "Zhao et al. 2024, https://arxiv.org/abs/2402.05864"

    def noise(self, uniform: Tensor) -> Tensor:
        """A standard exponential variable."""
        return (-uniform).log1p_().neg_()
