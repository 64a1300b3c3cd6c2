"""XTC, exclude top choices: now and then drop all but the least probable of the probable tokens.

    with probability q per row and step:  drop i  if  p_i >= t  and  p_i > min { p_j : p_j >= t }

Source: p-e-w, github.com/oobabooga/textgen/pull/6335. The tokens that end the sequence and the newline are
never dropped, but count among the probable ones. Ties: of several least probable ones all stay. With t
above 1/2 nothing could ever be dropped, so it is refused. One number per row decides, taken from the
call, so that a row's fate depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates

from .base import Truncation, without


class Xtc(Truncation):
    """Drops the top choices of some rows; draws one number per row and step."""

    contract_version = 1
    name = "xtc"
    paper = "p-e-w, Exclude top choices, github.com/oobabooga/textgen/pull/6335"
    after = (
        "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h", "top_n_sigma", "top_a", "tfs",
        "p_less", "p_less_norm", "min_k",
    )  # fmt: skip
    traits = frozenset[genmode.Trait]()

    class Params(genmode.Params):
        xtc_probability: float = Field(0.5, ge=0, le=1, description="how often the top choices are dropped")
        xtc_threshold: float = Field(0.1, gt=0, le=0.5, description="probability that makes a token a top choice")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._uniform: Callable[[], Tensor] | None = None
        self._exempt: Tensor | None = None
        self._chosen: Tensor | None = None

    def begin(self, context: genmode.Context) -> None:
        """Takes the call's random numbers, and looks up the tokens that are exempt."""
        self._uniform = context.uniform
        exempt = set(context.eos_token_ids)
        if context.tokenizer is not None:
            newline = context.tokenizer.encode("\n", add_special_tokens=False)
            exempt.update(newline[-1:])
        known = sorted(token for token in exempt if token < context.vocab_size)
        self._exempt = torch.tensor(known, dtype=torch.long, device=context.device) if known else None

    def reset(self) -> None:
        """Forgets the call."""
        self._uniform = self._exempt = self._chosen = None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        self._choose(scores)
        return self._exclude(scores, self._chosen)

    def redo(self, scores: Tensor, rows: Tensor, history: genmode.History) -> Tensor:
        """`process` for some rows, with the numbers drawn last."""
        return self._exclude(scores, None if self._chosen is None else self._chosen[rows])

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        self._choose(candidates.scores)
        candidates = candidates.settled()
        shares = candidates.shares()
        dropped, chosen = self._excluded(shares, self._chosen), self._chosen
        if self._exempt is not None:
            dropped &= (candidates.ids[..., None] != self._exempt).all(-1)
        _, doubt = candidates.within(shares - self.params.xtc_threshold, candidates.error(shares))
        kept = candidates.cut(~dropped)
        return kept if doubt is None or chosen is None else kept.unless(doubt.any(-1) & chosen)

    def _choose(self, scores: Tensor) -> None:
        rows = scores.shape[0]
        drawn = torch.rand(rows, device=scores.device) if self._uniform is None else self._uniform()
        self._chosen = drawn < self.params.xtc_probability

    def _excluded(self, shares: Tensor, chosen: Tensor | None) -> Tensor:
        probable: Tensor = shares >= self.params.xtc_threshold
        least = shares.masked_fill(~probable, torch.inf).amin(-1, keepdim=True)
        dropped = probable & (shares > least)
        return dropped if chosen is None else dropped & chosen[:, None]

    def _exclude(self, scores: Tensor, chosen: Tensor | None) -> Tensor:
        dropped = self._excluded(scores.softmax(-1), chosen)
        if self._exempt is not None:
            dropped.index_fill_(-1, self._exempt, False)
        return without(scores, dropped)
