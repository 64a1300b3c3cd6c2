"""The Gumbel watermark, or EXP (Aaronson 2022; Kirchenbauer et al. 2023b, section 3; Fernandez et al. 2023).

    winner = argmax over v of score[v] - log(-log r(v))        that is, of r(v) ** (1 / p(v))

The winner is distributed as a sample of softmax(scores). In marked text r is near one, and the evidence of a token
is -log(1 - r); without the mark it is Exp(1), and the sum over n contexts is exactly Erlang(n). See `choice` for
contexts that repeat. Rows of one prompt get one text, whatever the strategy's own random numbers.
"""

from __future__ import annotations

from torch import Tensor

import genmode

from .choice import Choice


class Gumbel(Choice):
    """Samples with the key's noise. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "gumbel"
    paper = "Aaronson 2022, https://scottaaronson.blog/?p=6823; Fernandez et al. 2023, https://arxiv.org/abs/2308.00113"
    traits = frozenset({genmode.Trait.CHOOSES, genmode.Trait.KEEPS_DISTRIBUTION})

    def noise(self, uniform: Tensor) -> Tensor:
        """A standard Gumbel variable."""
        return uniform.log().neg_().log_().neg_()
