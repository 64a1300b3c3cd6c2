"""Green lists by a keyed hash: what the schemes share that raise the scores of some tokens by a constant.

With the last h tokens as context and a key, every token has an octet (see `keyed_hash`); it is green where that
is below 256 gamma, rounded to the nearest of 1/256 .. 255/256, so that in text without the mark each counted
token is green with exactly that probability:

    score[v] += bias    if v is green

Equal scores stay equal within a colour; masked tokens stay masked. A text's tokens are counted once for each
(context, token): repetitions read the same octet.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.watermark import Bernoulli

from . import keyed_hash
from .contexts import current, laid_out, of_texts


class KeyParams(genmode.Params):
    """Parameters with a key; what is wrong is told without the value."""

    model_config = ConfigDict(hide_input_in_errors=True)


class GreenParams(KeyParams):
    """Parameters of schemes with hashed green lists."""

    key: int | str = Field(description="the secret; text is hashed to 64 bits")
    greenlist_ratio: float = Field(0.5, gt=0, lt=1, description="share of green tokens, in steps of 1/256")
    bias: float = Field(2.0, gt=0, description="what green tokens' scores gain")


class ContextParams(GreenParams):
    """Parameters of schemes whose lists change with the context."""

    context_width: int = Field(1, ge=1, le=4096, description="tokens of context that a green list depends on")


class Greens(genmode.Watermarker):
    """Base of the schemes with hashed green lists. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    Params: ClassVar[type[genmode.Params]] = GreenParams

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.key = keyed_hash.number(self.params.key)
        self.limit = min(255, max(1, round(256 * self.params.greenlist_ratio)))
        self._green: Tensor | None = None  # [rows, vocab], float32

    @property
    def width(self) -> int:
        """Tokens of context."""
        return int(getattr(self.params, "context_width", 0))

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        contexts, ready = current(history, self.width)
        keys = keyed_hash.context_keys(self.key, contexts)
        return self.favour(scores, keyed_hash.octets(keys, scores.shape[1]), ready)

    def favour(self, scores: Tensor, octets: Tensor, rows: Tensor | None) -> Tensor:
        """Raise the green tokens' scores, in the rows `[rows]`, bool, or in all; `octets` `[rows or 1, vocab]`."""
        green = self._green
        if green is None or green.shape[1] != scores.shape[1] or len(green) != len(octets):
            green = self._green = torch.empty(octets.shape, dtype=torch.float32, device=scores.device)
        torch.lt(octets, self.limit, out=green)
        if rows is not None and not host_sync.surely_all(rows):
            green.mul_(rows[:, None])
        return scores.add_(green, alpha=self.params.bias)

    def reset(self) -> None:
        self._green = None

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        contexts, following, where = of_texts(tokens, self.width)
        keys = keyed_hash.context_keys(self.key, contexts)
        green = (keyed_hash.octet_at(keys, following) < self.limit).double()
        draws = keyed_hash.derive(keys, following)
        return genmode.Evidence(laid_out(where, green, torch.nan), laid_out(where, draws, 0))

    def null(self) -> genmode.Null:
        return Bernoulli(self.limit / 256)
