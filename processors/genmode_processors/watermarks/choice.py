"""Schemes that draw the token themselves: one pseudo-random number a token, and the best score with noise wins.

    winner = argmax over v of score[v] + noise(r(v)),   r(v) = uniform(derive(context key, k), v) in (0, 1)

where noise rises with r and k counts at how many earlier positions the row decoded from this context. The first
time (k = 0) is what the detector reads; for every further one the numbers are others, as in ordinary sampling, so
that the draws of a text are independent and no loop can form. Only the winner keeps its score; ties go to the
lower id. A row that is masked throughout is left so.

The winner is found without the whole vocabulary's numbers. Let L be at most log sum exp(score). A token whose octet is not
255 has r < 255/256 and, for both noises, noise < 5.56. So once a value of at least L - 2.4 is found, only tokens
with score >= L - 7.96 or octet 255 can win: about 1/256 of the vocabulary and few others. The best
value is lower in at most 1 of 61,000 rows (it exceeds t with probability at least 1 - exp(-exp(L - t))); such rows are
done on the whole vocabulary, and so are all on accelerators, where shapes must not depend on values.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.nulls import Exponential

from . import keyed_hash
from .contexts import current, laid_out, occurrences, of_texts
from .green import KeyParams

FLOOR = 2.4
BELOW = FLOOR + 5.56


class Choice(genmode.Watermarker, abc.ABC):
    """Base of the schemes that draw the token. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    chooses = True

    class Params(KeyParams):
        key: int | str = Field(description="the secret; text is hashed to 64 bits")
        context_width: int = Field(2, ge=1, description="tokens of context that the draw depends on")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.key = keyed_hash.number(self.params.key)

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
        """The winner of each row, `[rows]`, long."""
        if scores.device.type != "cpu" or scores.dtype != torch.float32:
            return self.among_all(scores, keys)
        rows, vocab = scores.shape
        # a sum over half of the tokens is a lower bound, and nearly always close
        some = scores[:, : (vocab + 1) // 2].logsumexp(-1, keepdim=True)
        floor = torch.maximum(some, scores.amax(-1, keepdim=True)) - FLOOR
        flat = scores.numpy().ravel()
        near = np.flatnonzero(scores.numpy() >= (floor - (BELOW - FLOOR)).numpy())
        rare = np.flatnonzero(keyed_hash.octets(keys, vocab).numpy() == 255)
        places = torch.from_numpy(np.concatenate([near, rare[flat[rare] > -np.inf]]))
        row = places // vocab
        token = places - row * vocab
        values = scores.reshape(-1)[places].double() + self.noise(keyed_hash.uniform_at(keys[row], token))
        best = torch.full((rows,), -torch.inf, dtype=torch.float64).scatter_reduce_(0, row, values, "amax")
        won = values == best[row]
        winners = torch.full((rows,), vocab).scatter_reduce_(0, row[won], token[won], "amin")
        unsure = (best < floor[:, 0]).nonzero()[:, 0]
        if len(unsure) or int(winners.max()) == vocab:
            unsure = torch.cat([unsure, (winners == vocab).nonzero()[:, 0]])
            winners[unsure] = self.among_all(scores[unsure], keys[unsure])
        return winners

    def among_all(self, scores: Tensor, keys: Tensor) -> Tensor:
        """The same from every token's number."""
        rows, vocab = scores.shape
        tokens = torch.arange(vocab, device=scores.device).repeat(rows)
        uniform = keyed_hash.uniform_at(keys.repeat_interleave(vocab), tokens).view(rows, vocab)
        return (scores.double() + self.noise(uniform)).argmax(-1)

    def evidence(self, tokens: Tensor, gist: Tensor | None) -> genmode.Evidence:
        contexts, following, where = of_texts(tokens, self.params.context_width)
        keys = keyed_hash.context_keys(self.key, contexts)
        uniform = keyed_hash.uniform_at(keyed_hash.derive(keys, torch.zeros_like(following)), following)
        # -log(1 - r) is Exp(1) for a number that knows nothing of the text
        return genmode.Evidence(laid_out(where, -(-uniform).log1p(), torch.nan), laid_out(where, keys, 0))

    def null(self) -> genmode.Null:
        return Exponential()
