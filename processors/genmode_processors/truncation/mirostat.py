"""Mirostat: truncation that steers the surprise of the text to a target.

Each row has a bound mu in bits, at first 2 tau. A drawn token of surprise S = -log2 p, with p before
truncation, moves it: mu <- mu - eta * (S - tau). A step keeps

    mode 2:  the tokens with S_i <= mu, and the best token
    mode 1:  the k best,  k = (e * 2^mu / (1 - N^-e))^(1/s),  e = s - 1,  N = size of the vocabulary,
             s = sum t_i b_i / sum t_i^2,  t_i = log((i+1) / i),  b_i = log(p_i / p_{i+1}),  i = 1 .. 99

where s is the exponent of a Zipf law fitted to the 100 best tokens; k is rounded, at least 1 and at most N.

Source: Basu, Ramachandran, Keskar and Varshney, "Mirostat: a neural text decoding algorithm that directly
controls perplexity", ICLR 2021, arXiv:2007.14966, with the surprise measured under the model as in the
authors' program; probabilities are those that the processors before leave. Ties: tokens as good as the k-th
stay; equal surprise, equal fate. Masked tokens do not count among the 100. A token that was masked or
dropped, e.g. the padding of a finished row, moves nothing. A target above what the model offers lets mu
grow without bound.

How well the target is held: the moves of mu add up, so the mean surprise of n tokens is exactly

    tau + (2 tau - mu_n) / (eta n)

The start counts, divided by eta n. The fit of mode 1 overrates the exponent of a peaked distribution and so needs
a mu far above 2 tau: on SmolLM2-135M-Instruct (500 tokens of 4 rows, temperature 1, end of sequence suppressed)
8 to 10 bits for tau 2 and 8 to 21 above. Means were off the target by -5.2, -4.7, -4.4 and -2.6% for tau 2, 3, 4
and 5 in mode 1 and by -3.3, -2.0, -2.1 and -1.5% in mode 2, with eta 0.1. Mode 1 with eta 1, the rate of the
authors' program, was off by -1.3, -0.3, -0.8 and -3.7%; the last for a row that repeated itself, which offers no
surprise, so that mu climbed to 320. `benchmarks/mirostat.py` measures it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import Candidates, ascending, precise

from .base import Truncation, exempt, without

_FITTED = 100
_KEPT_STEPS = 64


@dataclasses.dataclass
class _Seen:
    """What a step can say of the surprise of the token drawn at it."""

    surprise: Tensor
    """`[rows, vocab]`, or `[rows, k]` of the tokens `ids`; bits, infinite or NaN where masked."""
    ids: Tensor | None

    def of(self, tokens: Tensor) -> Tensor:
        """Surprise of `tokens` `[rows]` in bits, `[rows]`; infinite where it is not known."""
        if self.ids is None:
            return self.surprise.gather(-1, tokens[:, None])[:, 0]
        return self.surprise.masked_fill(self.ids != tokens[:, None], torch.inf).amin(-1)

    def select(self, rows: Tensor) -> None:
        self.surprise = self.surprise.index_select(0, rows)
        self.ids = None if self.ids is None else self.ids.index_select(0, rows)


class Mirostat(Truncation):
    """Holds the average surprise of each row at a target."""

    contract_version = 1
    name = "mirostat"
    paper = "Basu, Ramachandran, Keskar and Varshney, Mirostat, ICLR 2021, arXiv:2007.14966"
    after = (
        "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h", "top_n_sigma", "top_a", "tfs",
        "p_less", "p_less_norm", "min_k", "xtc",
    )  # fmt: skip
    traits = frozenset[genmode.Trait]()

    class Params(genmode.Params):
        mirostat_mode: Literal[0, 1, 2] = Field(2, description="version of the algorithm; 0 turns it off")
        mirostat_tau: float = Field(5.0, gt=0, description="target surprise in bits per token")
        mirostat_eta: float = Field(0.1, gt=0, description="how fast the bound follows the surprise")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._rows: genmode.History | None = None  # the call's own, not those of a draft
        self._seen: list[_Seen] = []
        self._bounds = torch.empty(0, 0)
        self._taken = torch.empty(0, dtype=torch.long)
        self._behind = torch.empty(0, dtype=torch.long)

    @property
    def reach(self) -> int | None:
        """The data tell; turned off it drops nothing."""
        return 0 if self.params.mirostat_mode else None

    def begin(self, context: genmode.Context) -> None:
        """Every row starts with twice the target."""
        self._rows = context.history
        self._start(context.rows, torch.device(context.device))

    def reset(self) -> None:
        """Forgets the rows."""
        self._rows, self._seen = None, []
        self._bounds = torch.empty(0, 0)

    def _start(self, rows: int, device: torch.device) -> None:
        self._seen = []
        # _bounds[n, r] is row r's mu after n tokens; _taken is n; _behind counts from the step's first position
        self._bounds = torch.full((_KEPT_STEPS, rows), 2 * self.params.mirostat_tau, device=device)
        self._steps = 0
        self._taken = torch.zeros(rows, dtype=torch.long, device=device)
        self._behind = torch.zeros(rows, dtype=torch.long, device=device)

    @property
    def bound(self) -> Tensor:
        """mu of each row in bits, `[rows]`, float32."""
        return self._bounds.gather(0, self._taken[None])[0]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        if not self.params.mirostat_mode:
            return scores
        if self._bounds.shape[1] != scores.shape[0]:
            self._start(scores.shape[0], scores.device)
        surprise = scores.log_softmax(-1).mul_(-1 / math.log(2))
        self._see(_Seen(surprise, None), history)
        return self._dense(scores, surprise, self.bound[:, None])

    def redo(self, scores: Tensor, rows: Tensor, history: genmode.History) -> Tensor:
        """`process` for some rows of the step seen last."""
        surprise = scores.log_softmax(-1).mul_(-1 / math.log(2))
        last = self._seen[-1]
        if last.ids is not None:
            whole = surprise.new_full((last.ids.shape[0], scores.shape[-1]), torch.inf, dtype=last.surprise.dtype)
            last.surprise = whole.scatter_(-1, last.ids, last.surprise)
            last.ids = None
        last.surprise.index_copy_(0, rows, surprise.to(last.surprise.dtype))
        return self._dense(scores, surprise, self.bound[rows, None])

    def narrow(self, candidates: Candidates, history: genmode.History) -> Candidates:
        """The same for candidates."""
        if not self.params.mirostat_mode:
            return candidates
        if self._bounds.shape[1] != candidates.scores.shape[0]:
            self._start(candidates.scores.shape[0], candidates.scores.device)
        candidates = candidates.settled()
        shares = candidates.shares()
        surprise = shares.log2().neg_()
        self._see(_Seen(surprise, candidates.ids), history)
        bound = precise(self.bound[:, None])
        if self.params.mirostat_mode == 2:
            margin = bound - surprise
            kept, doubt = candidates.within(margin, 2 * candidates.error(shares) + 1e-5)
            best = candidates.scores == candidates.scores.amax(-1, keepdim=True)
            return candidates.cut(*exempt(kept, doubt, best))
        ordered = candidates.scores.sort(-1, descending=True).values
        count = self._count(ordered, bound, candidates.vocab)
        keep = candidates.scores >= self._kth(ordered, count.round())
        if not candidates.checked:
            return candidates.cut(keep)
        more = candidates.scores >= self._kth(ordered, (count * (1 + 1e-3)).round())
        fewer = candidates.scores >= self._kth(ordered, (count * (1 - 1e-3)).round())
        fitted = candidates.scores.shape[-1] >= min(_FITTED, candidates.vocab) or candidates.dense is None
        narrowed = candidates.cut(more, more & ~fewer)
        return narrowed if fitted else narrowed.unless(torch.ones_like(candidates.ids[:, 0], dtype=torch.bool))

    def _dense(self, scores: Tensor, surprise: Tensor, bound: Tensor) -> Tensor:
        best = scores.amax(-1, keepdim=True)
        if self.params.mirostat_mode == 2:
            return without(scores, (surprise > bound) & (scores < best))
        vocab = scores.shape[-1]
        ordered = ascending(scores).flip(-1)  # [rows, vocab] descending
        count = self._count(ordered, bound, vocab)
        return without(scores, scores < self._kth(ordered, count.round()))

    @staticmethod
    def _kth(ordered: Tensor, count: Tensor) -> Tensor:
        return ordered.gather(-1, count.long().clamp(1, ordered.shape[-1]) - 1)

    @staticmethod
    def _count(ordered: Tensor, bound: Tensor, vocab: int) -> Tensor:
        """k of mode 1 before rounding, `[rows, 1]`, float64, at most `vocab`; `ordered` `[rows, n]` descends."""
        head = precise(ordered[:, :_FITTED])
        steps = torch.arange(1, head.shape[-1], device=head.device, dtype=head.dtype)
        spans = ((steps + 1) / steps).log()  # t_i
        drops = head[:, :-1] - head[:, 1:]  # b_i
        seen = head[:, 1:] > -torch.inf
        fit = (spans * drops).masked_fill(~seen, 0).sum(-1, keepdim=True)
        exponent = fit / (spans.square() * seen).sum(-1, keepdim=True).clamp(min=1e-30)
        excess = exponent - 1
        excess = torch.where(excess.abs() < 1e-9, 1e-9, excess)
        # (e / (1 - N^-e)) -> 1 / log N for e -> 0
        log_share = (excess / -torch.expm1(-excess * math.log(max(vocab, 2)))).log()
        log_count = (log_share + bound * math.log(2)) / exponent.clamp(min=1e-9)
        return log_count.clamp(0, math.log(vocab)).exp()

    def _see(self, seen: _Seen, history: genmode.History) -> None:
        # the call's own history means the first position of a step; drafted positions have histories of theirs
        if history is self._rows or len(self._seen) >= _KEPT_STEPS:
            self._seen, self._behind = [], torch.zeros_like(self._behind)
        self._seen.append(seen)

    def accept(self, tokens: Tensor) -> None:
        """Moves mu by the surprise of `tokens` `[rows]`."""
        if not self.params.mirostat_mode or not self._bounds.numel():
            return
        bound = self.bound
        surprise = torch.full_like(bound, torch.inf)
        for position, seen in enumerate(self._seen):
            surprise = torch.where(self._behind == position, seen.of(tokens).to(bound.dtype), surprise)
        moved = bound - self.params.mirostat_eta * (surprise - self.params.mirostat_tau)
        moved = torch.where(surprise.isfinite(), moved, bound)
        self._steps += 1
        if self._steps >= self._bounds.shape[0]:
            self._bounds = torch.cat([self._bounds, torch.zeros_like(self._bounds)])
        self._taken, self._behind = self._taken + 1, self._behind + 1
        self._bounds.scatter_(0, self._taken[None], moved[None])

    def reorder(self, rows: Tensor) -> None:
        """Row i takes the bound and the past of row `rows[i]`."""
        self._bounds = self._bounds.index_select(1, rows)
        self._taken, self._behind = self._taken.index_select(0, rows), self._behind.index_select(0, rows)
        for seen in self._seen:
            seen.select(rows)

    def rollback(self, counts: Tensor) -> None:
        """Row i gets back the bound it had `counts[i]` tokens ago."""
        self._taken = (self._taken - counts).clamp_(min=0)
        self._behind = self._behind - counts
