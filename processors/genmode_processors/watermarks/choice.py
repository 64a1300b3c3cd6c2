"""Schemes that draw the token themselves: one pseudo-random number a token, and the best score with noise wins.

    winner = argmax over v of score[v] + noise(r(v)),   r(v) = uniform(derive(context key, k), v) in (0, 1)

where noise rises with r and k counts at how many earlier positions the row decoded from this context. The first
time (k = 0) is what the detector reads; for every further one the numbers are others, as in ordinary sampling, so
that the draws of a text are independent and no loop can form. Only the winner keeps its score; ties go to the
lower id. A row that is masked throughout is left so.

The winner is found without the whole vocabulary's numbers. A token whose octet is not 255 has r < 255/256 and with
it a noise below 5.56, for both noises. So the tokens of octet 255, about 1/256 of the vocabulary, are drawn first. With
B the best of their values, and at least the highest score with the least noise that there is, no other token can win
unless its score is at least B - 5.56: those are few, and drawn next. The result is exactly that of all numbers. Where
the host may not look, as on accelerators, shapes must not depend on values, and all numbers are drawn.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import numpy_reads
from genmode.watermark import Exponential

from . import keyed_hash
from .contexts import current, laid_out, occurrences, of_texts
from .green import KeyParams


class Drawn(NamedTuple):
    """Tokens with their numbers: rows and ids `[n]`, long, and scores with noise `[n]`, float64."""

    row: Tensor
    token: Tensor
    value: Tensor


class Choice(genmode.Watermarker, abc.ABC):
    """Base of the schemes that draw the token. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.CHOOSES})

    class Params(KeyParams):
        key: int | str = Field(description="the secret; text is hashed to 64 bits")
        context_width: int = Field(2, ge=1, le=4096, description="tokens of context that the draw depends on")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.key = keyed_hash.number(self.params.key)
        least, common = torch.tensor([2.0**-53, 255 / 256], dtype=torch.float64).unbind()
        self.least = float(self.noise(least))
        self.common = float(self.noise(common))  # no token has more unless its octet is 255

    @abc.abstractmethod
    def noise(self, uniform: Tensor) -> Tensor:
        """The noise of a number in (0, 1), float64; it rises with the number."""

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        width = self.params.context_width
        contexts, ready = current(history, width)
        keys = keyed_hash.derive(keyed_hash.context_keys(self.key, contexts), occurrences(history, width))
        winners = self.winners(scores, keys)[:, None]
        kept = scores.gather(1, winners)
        if ready is None:
            return scores.fill_(-torch.inf).scatter_(1, winners, kept)
        chosen = torch.full_like(scores, -torch.inf).scatter_(1, winners, kept)
        return torch.where(ready[:, None], chosen, scores)

    def winners(self, scores: Tensor, keys: Tensor) -> Tensor:
        """The winner of each row, `[rows]`, long; 0 where all tokens are masked."""
        if not numpy_reads(scores):
            return self.among_all(scores, keys)
        rows, vocab = scores.shape
        highest = scores.amax(-1).double()  # [rows]
        if bool(highest.isnan().any()):
            return self.among_all(scores, keys)
        rare = self._drawn(scores, keys, keyed_hash.octets(keys, vocab).numpy() == 255)
        best = (highest + self.least).scatter_reduce_(0, rare.row, rare.value, "amax")
        # lower than needed, so that no rounding leaves out a token
        enough = (best - self.common - 1e-6).float().nextafter(torch.tensor(-torch.inf))
        enough.masked_fill_(highest.isneginf(), torch.inf)
        near = self._drawn(scores, keys, scores.numpy() >= enough[:, None].numpy())
        row, token, value = (torch.cat(both) for both in zip(rare, near, strict=True))
        best.scatter_reduce_(0, row, value, "amax", include_self=False)
        won = (value == best[row]) & ~value.isneginf()
        return torch.zeros(rows, dtype=torch.long).scatter_reduce_(0, row[won], token[won], "amin", include_self=False)

    def _drawn(self, scores: Tensor, keys: Tensor, where: NDArray[np.bool_]) -> Drawn:
        """The scores with noise of some tokens; `where` `[rows, vocab]`."""
        places = torch.from_numpy(np.flatnonzero(where))
        row = places // scores.shape[1]
        token = places - row * scores.shape[1]
        return Drawn(row, token, scores[row, token].double() + self.noise(keyed_hash.uniform_at(keys[row], token)))

    def among_all(self, scores: Tensor, keys: Tensor) -> Tensor:
        """The same from every token's number."""
        rows, vocab = scores.shape
        tokens = torch.arange(vocab, device=scores.device).repeat(rows)
        uniform = keyed_hash.uniform_at(keys.repeat_interleave(vocab), tokens).view(rows, vocab)
        return (scores.double() + self.noise(uniform)).argmax(-1)

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        contexts, following, where = of_texts(tokens, self.params.context_width)
        keys = keyed_hash.context_keys(self.key, contexts)
        uniform = keyed_hash.uniform_at(keyed_hash.derive(keys, torch.zeros_like(following)), following)
        # -log(1 - r) is Exp(1) for a number that knows nothing of the text
        return genmode.Evidence(laid_out(where, -(-uniform).log1p(), torch.nan), laid_out(where, keys, 0))

    def null(self) -> genmode.Null:
        return Exponential()
