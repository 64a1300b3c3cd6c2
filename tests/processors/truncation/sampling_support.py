"""What the tests of temperature and truncation share: scores of every kind, and all the processors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.sampling import counter_rng as counter
from genmode_processors.truncation.cutoffs import EpsilonCutoff, EtaCutoff
from genmode_processors.truncation.min_k import MinK
from genmode_processors.truncation.min_p import MinP, TopA
from genmode_processors.truncation.mirostat import Mirostat
from genmode_processors.truncation.p_less import PLess, PLessNorm
from genmode_processors.truncation.tail_free import TailFree
from genmode_processors.truncation.top_h import TopH
from genmode_processors.truncation.top_k import TopK
from genmode_processors.truncation.top_n_sigma import TopNSigma
from genmode_processors.truncation.top_p import TopP
from genmode_processors.truncation.typical import TypicalP
from genmode_processors.truncation.xtc import Xtc

KINDS = ["normal", "steep", "flat", "equal", "steps", "bfloat16", "masked", "nearly all masked", "minus huge"]
HISTORY: Any = SimpleNamespace(level=1)


def make(kind: str, rows: int, vocab: int, seed: int) -> Tensor:
    """Scores `[rows, vocab]`, float32, each row with at least one token unmasked."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, vocab, generator=generator) * 3
    if kind == "steep":
        scores = scores * 8
    elif kind == "flat":
        scores = scores / 30
    elif kind == "equal":
        scores = torch.full_like(scores, 1.5)
    elif kind == "steps":
        scores = (scores / 2).round()
    elif kind == "bfloat16":
        scores = scores.bfloat16().float()
    elif "masked" in kind or kind == "minus huge":
        share = 0.4 if kind == "masked" else 0.93
        hidden = torch.rand(rows, vocab, generator=generator) < share
        hidden[torch.arange(rows), scores.argmax(-1)] = False
        low = -torch.inf if "masked" in kind else torch.finfo(torch.float32).min
        scores = scores.masked_fill(hidden, low)
    return scores


def many_scores(vocabs: tuple[int, ...] = (1, 2, 3, 7, 40, 130)) -> st.SearchStrategy[Tensor]:
    """Scores of every kind, of one to three rows."""
    return st.builds(make, st.sampled_from(KINDS), st.integers(1, 3), st.sampled_from(vocabs), st.integers(0, 10**6))


FAMILY: list[genmode.LogitsProcessor] = [
    TopK(top_k=1),
    TopK(top_k=5),
    TopP(top_p=0.0),
    TopP(top_p=0.5),
    TopP(top_p=0.95),
    MinP(min_p=0.05),
    MinP(min_p=1.0),
    TopA(top_a=0.3),
    EpsilonCutoff(epsilon_cutoff=0.02),
    EtaCutoff(eta_cutoff=0.05),
    TypicalP(typical_p=0.3),
    TypicalP(typical_p=0.9),
    TopH(top_h=0.5),
    TopNSigma(top_n_sigma=0.8),
    TailFree(tfs=0.0),
    TailFree(tfs=0.9),
    PLess(),
    PLessNorm(),
    MinK(min_k_tau=3.0),
]
"""Truncations without state or chance."""


def every() -> list[genmode.LogitsProcessor]:
    """The family, and new objects of those with state or chance."""
    return [*FAMILY, Xtc(xtc_probability=0.6), Mirostat(mirostat_mode=1), Mirostat(mirostat_tau=2.0)]


class SeedNoise:
    """Noise of a call with a seed, as the host would give it."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        self.keys = torch.arange(rows) * 1000003 + seed
        self.step = 0

    def exponential_at(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        return counter.exponential(self.keys if rows is None else self.keys[rows], self.step, ids)

    def uniform(self) -> Tensor:
        return counter.uniform(self.keys, self.step)


def context(rows: int, noise: SeedNoise | None = None, **attributes: Any) -> Any:
    """The attributes of a call that these processors read."""
    values: dict[str, Any] = {
        "rows": rows, "device": torch.device("cpu"), "vocab_size": 1000, "eos_token_ids": [], "tokenizer": None,
        "history": HISTORY,
        "uniform": noise.uniform if noise is not None else lambda: torch.rand(rows),
    }  # fmt: skip
    return SimpleNamespace(**{**values, **attributes})
