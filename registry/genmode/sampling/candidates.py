"""The fused end of a chain: temperature, truncation and the draw on a few candidates per row.

Sampling needs the kept tokens alone, and nearly every truncation keeps few. So the end of the chain takes the highest
scores of each row once, lets each processor narrow these candidates instead of masking the vocabulary, and draws:

    token = argmax over the candidates of exp(score - best) / q,    q ~ Exp(1) per row and token

This is what softmax and torch.multinomial(probs, 1) do, restricted to tokens that can win.

The tokens are those of the unfused chain. Sums of float32 numbers differ in their last bits with the order of
addition, so a token at the edge of a truncation may be kept in one order and dropped in another, and which of several
equal scores a sort puts first is chance. Candidates therefore carry a doubt: a processor keeps a token that rounding
might decide, and marks it. Where the token drawn is certain and wins clearly, no decision in doubt could change it; the
rows where it is not (about one in a thousand) are done again by the unfused chain with the same noise. Where the host
may not look without waiting (`host_sync.is_free`), as on accelerators, nothing is checked: the same tokens up to the
last bits of float32, and at most `SPARE` scores equal to the k-th highest are seen. A row whose every token is masked
draws token 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from .. import host_sync
from .exponentials import Field, FullNoise, GeneratorNoise, PointNoise
from .selection import count_above, highest, leading

if TYPE_CHECKING:
    from ..contract import History, LogitsProcessor

__all__ = ["Candidates", "FullNoise", "GeneratorNoise", "Narrowing", "PointNoise", "draw", "narrowing", "precise"]

WIDTH = 4096
"""How many candidates a row gets where only the data tell how many are kept."""
_whole: ContextVar[int] = ContextVar("genmode_whole_vocabulary", default=2048)
"""Vocabularies up to this size are handled whole where the host may look: there a sort costs less than care."""
SPARE = 14
"""How many more than asked for are taken, so that scores equal to the last one are seen."""
ROUNDING = 2.0**-17
"""Bound on the relative error of float32's exp(score - best) / sum, the sum's own error aside."""
_CLEAR = 2.0**-16
_WIDE = 256


@dataclasses.dataclass(slots=True)
class Candidates:
    """The tokens of each row that may still be drawn. Not to be changed; every method returns another.

    Attributes:
        scores: `[rows, k]`, float32; -inf where a candidate was dropped, the others in descending order.
        ids: `[rows, k]`, long; the candidates' token ids.
        vocab: size of the vocabulary.
        dense: `[rows, vocab]`, float32, the scores of the whole vocabulary, as long as tokens outside the candidates may
            be kept too; None once all of them are dropped. Not to be written.
        checked: whether doubts are kept; False where the host may not look.
        doubt: `[rows, k]`, bool, the candidates that rounding or a tie might drop; None if there are none.
        misfits: `[rows]`, bool, the rows whose tokens the unfused chain must find; None if there are none.
        ragged: whether rows with fewer candidates than others are filled up with -inf, while `dense` is there.
    """

    scores: Tensor
    ids: Tensor
    vocab: int
    dense: Tensor | None = None
    checked: bool = False
    doubt: Tensor | None = None
    misfits: Tensor | None = None
    ragged: bool = False

    @property
    def alive(self) -> Tensor:
        """Which candidates are not dropped, `[rows, k]`, bool."""
        return self.scores > -torch.inf

    def shares(self) -> Tensor:
        """The candidates' probabilities among all tokens not dropped; `[rows, k]`, float64, NaN in a masked row."""
        if self.dense is None:
            return precise(self.scores).softmax(-1)
        return precise(self.dense.softmax(-1).gather(-1, self.ids))

    def error(self, shares: Tensor) -> Tensor | float:
        """Bound on the relative error of a sum of probabilities as the unfused chain computes it."""
        size = self.scores.shape[-1] if self.dense is None else self.vocab
        # a float32 sum of n terms in at least 4 lanes errs by at most n / 4 * 2^-24 of itself
        error = 2 * (ROUNDING + size * 2.0**-26)
        return error if self.doubt is None else error + (shares * self.doubt).sum(-1, keepdim=True)

    def settled(self) -> Candidates:
        """The same with rows in doubt made misfits: for rules that cannot bound what a doubt changes."""
        return self if self.doubt is None else self.unless(self.doubt.any(-1))

    def unless(self, rows: Tensor) -> Candidates:
        """The same with the rows in `rows`, `[rows]`, bool, made misfits."""
        if not self.checked:
            return self
        return dataclasses.replace(self, misfits=rows if self.misfits is None else self.misfits | rows)

    def within(self, margin: Tensor, tolerance: Tensor | float) -> tuple[Tensor, Tensor | None]:
        """Which candidates to keep by a margin that must not be negative, and which of these are in doubt.

        Args:
            margin: `[rows, k]`, by how much a candidate meets the rule.
            tolerance: how far the margin of the unfused chain may lie from it.

        Returns:
            kept and doubt for `cut`, `[rows, k]`, bool; doubt is None where nothing is checked.
        """
        if not self.checked:
            return margin >= 0, None
        kept = margin >= -tolerance
        return kept, kept & (margin <= tolerance)

    def cut(self, kept: Tensor, doubt: Tensor | None = None) -> Candidates:
        """Drop all but the candidates in `kept`, and every token outside the candidates.

        Args:
            kept: `[rows, k]`, bool.
            doubt: `[rows, k]`, bool; those in `kept` that the last bits might drop; None for none.

        Returns:
            Candidates whose `dense` is None. A row whose last candidate is kept is a misfit: tokens outside might have
            been kept as well.
        """
        scores, ids, misfits, doubt = self.scores, self.ids, self.misfits, _either(self.doubt, doubt)
        if self.checked and self.dense is not None and self.vocab > scores.shape[-1]:
            last_kept = kept[:, -1] & (scores[:, -1] > -torch.inf)
            misfits = _either(misfits, ~(self.alive & ~kept).any(-1) if self.ragged else last_kept)
            if kept.shape[-1] > _WIDE and (last := int(kept.any(0).sum())) < kept.shape[-1]:
                # the scores descend, so what is kept stands in front
                front = slice(0, max(last, 1))
                scores, ids, kept = scores[:, front], ids[:, front], kept[:, front]
                doubt = None if doubt is None else doubt[:, front]
        scores = scores.masked_fill(~kept, -torch.inf)
        return Candidates(scores, ids, self.vocab, None, self.checked, doubt, misfits)

    def front(self, k: int) -> Candidates:
        """The first k candidates, every other token being dropped."""
        doubt = None if self.doubt is None else self.doubt[:, :k]
        return Candidates(self.scores[:, :k], self.ids[:, :k], self.vocab, None, self.checked, doubt, self.misfits)

    def split(self, kept: Tensor, doubt: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`kept` and `doubt` with every candidate whose score equals one that is kept and one that is not.

        For rules that keep some of several equal scores, where the order of a sort decides which.
        """
        if doubt is None:
            return kept, None
        kept = kept & self.alive
        tied, doubtful = self._straddled(kept), bool(doubt.any())
        if doubtful:
            tied = _either(tied, self._straddled(kept & ~doubt))
        if tied is None:
            return kept, doubt if doubtful else None
        return kept | tied, doubt | tied

    def _straddled(self, members: Tensor) -> Tensor | None:
        """The candidates as good as the lowest member, where not all of them are members; `[rows, k]`, bool."""
        lowest = self.scores.masked_fill(~members, torch.inf).amin(-1, keepdim=True)
        reached = self.scores >= lowest
        if torch.equal(reached, members):
            return None
        return (self.scores == lowest) & (reached & ~members).any(-1, keepdim=True)


def precise(values: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return values if values.device.type == "mps" else values.double()


def _either(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


@runtime_checkable
class Narrowing(Protocol):
    """What a processor of the temperature or truncation stage adds to take part in the fused chain.

    Attributes:
        reach: what `narrow` needs to begin with the whole vocabulary. A number: it keeps some of that many highest
            scores. 0: the data tell how many it keeps. None: it needs candidates that others left.
    """

    @property
    def reach(self) -> int | None: ...

    def process(self, scores: Tensor, history: History) -> Tensor: ...

    def narrow(self, candidates: Candidates, history: History) -> Candidates:
        """What `process` does, on candidates; `candidates.dense` is None if `reach` is."""
        ...

    def redo(self, scores: Tensor, rows: Tensor, history: History) -> Tensor:
        """`process` for the rows `rows` `[n]`, long, of the step that was narrowed last.

        Random numbers that `narrow` drew are used again. `scores` is `[n, vocab]` and may be written.
        """
        ...


@contextmanager
def never_whole() -> Generator[None, None, None]:
    """Within the block small vocabularies are handled by candidates as well, so that tests cover them."""
    token = _whole.set(0)
    try:
        yield
    finally:
        _whole.reset(token)


def narrowing(processors: Sequence[LogitsProcessor]) -> int:
    """Where the longest suffix of a chain begins whose processors all take part in the fused chain."""
    start = len(processors)
    while start and isinstance(processors[start - 1], Narrowing):
        start -= 1
    return start


def _begin(dense: Tensor, k: int) -> Candidates:
    """The k best tokens of each row, or about `WIDTH` if k is 0."""
    vocab = dense.shape[-1]
    scores, ids, ragged = (*highest(dense, min(k, vocab)), False) if k else leading(dense, WIDTH)
    return Candidates(scores, ids, vocab, dense, checked=host_sync.is_free(dense.device), ragged=ragged)


def draw(
    processors_tail: Sequence[LogitsProcessor], scores: Tensor, history: History, noise: PointNoise | FullNoise
) -> Tensor:
    """Run the end of the chain and draw a token per row.

    Args:
        processors_tail: `chain[narrowing(chain):]`; empty if all of the chain has run.
        scores: `[rows, vocab]`, float32, as the processors before left them; may be written.
        history: the tokens so far.
        noise: `GeneratorNoise()` for torch's generator, or the call's own.

    Returns:
        tokens `[rows]`, long.
    """
    chain = [cast(Narrowing, processor) for processor in processors_tail]
    free = host_sync.is_free(scores.device)
    if free and scores.shape[-1] <= _whole.get():
        for processor in chain:
            scores = processor.process(scores, history)
        return scores.softmax(-1).div_(_full_noise(noise, scores)).argmax(-1)
    candidates: Candidates | None = None
    start = 0
    for place, processor in enumerate(chain):
        if candidates is None and processor.reach is None and place:
            candidates = _left(scores) if free else None
        if candidates is None and (processor.reach if free else processor.reach or None) is None:
            scores, start = processor.process(scores, history), place + 1
        else:
            if candidates is None:
                candidates = _begin(scores, processor.reach + SPARE if processor.reach else 0)
            candidates = processor.narrow(candidates, history)
    if candidates is None and chain and free:
        candidates = _left(scores)
    field = Field(noise, scores)
    if candidates is None:
        return _exactly(scores, field)
    tokens, unsure = _among(candidates, field)
    if unsure is not None and bool(unsure.any()):
        rows = unsure.nonzero()[:, 0]
        again = scores[rows]
        for processor in chain[start:]:
            again = processor.redo(again, rows, history)
        tokens[rows] = _exactly(again, field, rows)
    return tokens


def _full_noise(noise: PointNoise | FullNoise, like: Tensor) -> Tensor:
    """Noise for the whole vocabulary, `[rows, vocab]`, drawn in one operation where a generator draws it."""
    if isinstance(noise, GeneratorNoise):
        return torch.empty_like(like).exponential_(generator=noise.generator)
    return Field(noise, like).full()


def _left(scores: Tensor) -> Candidates | None:
    """All that the processors before have left, if it is little."""
    count = count_above(scores, -torch.inf)
    return dataclasses.replace(_begin(scores, max(count, 1)), dense=None) if count <= WIDTH else None


def _exactly(scores: Tensor, field: Field, rows: Tensor | None = None) -> Tensor:
    """argmax(softmax(scores) / q), as torch.multinomial computes it; `[rows]`."""
    return scores.softmax(-1).div_(field.full(rows)).argmax(-1)


def _among(candidates: Candidates, field: Field) -> tuple[Tensor, Tensor | None]:
    """The winner of each row, and in which rows it is not certain; None where nothing is checked."""
    # log(exp(score) / q), which is largest where the ratio is
    ratios = precise(candidates.scores).sub(field.at(candidates.ids).log())  # [rows, k]
    if not candidates.checked:
        return candidates.ids.gather(-1, ratios.argmax(-1, keepdim=True))[:, 0], None
    values, places = ratios.topk(min(2, ratios.shape[-1]))
    first, place = values[:, 0], places[:, :1]
    # true also where every token is masked
    unsure = values[:, -1] >= first - _CLEAR if values.shape[-1] > 1 else first == -torch.inf
    for doubtful in (candidates.doubt, candidates.misfits):
        if doubtful is not None:
            unsure |= doubtful if doubtful.dim() == 1 else doubtful.gather(-1, place)[:, 0]
    return candidates.ids.gather(-1, place)[:, 0], unsure
