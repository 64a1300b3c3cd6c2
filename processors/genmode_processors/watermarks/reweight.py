"""The alpha-reweight: DiPmark (Wu et al. 2023) and, at alpha = 1/2, the gamma-reweight of Hu et al. 2023 (Unbiased).

The key and the context put the vocabulary in an order. With F the cumulative probability along it, the order's
first alpha is cut off, its last alpha counts twice, and token v between F = a and F = b gets

    p'(v) = G(b) - G(a),    G(x) = max(x - alpha, 0) + max(x - (1 - alpha), 0)

An order and its reverse together give 2 p (DiPmark, theorem 4.2): where each is as likely as the other, the mean of
p' over keys is p. The papers shuffle the vocabulary. Here the order is: first the tokens whose bit is 0,
then the others, each half by id, ascending or descending as one more bit of the context key says; its reverse is
the order of the complementary bits and the other direction, just as likely. The evidence of a token is its half,
which without the mark is a fair coin (the papers' gamma = 1/2), so that the null is an exact binomial where the
papers bound it.

Contexts that the row has decoded from before are left unmarked (the papers' context history), and count once.
Token scores change by -inf, 0 or log 2, at two tokens of a row by what lies between.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import counter
from genmode.nulls import Bernoulli

from . import keyed_hash
from .contexts import current, laid_out, occurrences, of_texts
from .green import KeyParams

BLOCK = 256


class UnbiasedParams(KeyParams):
    """Parameters of the gamma-reweight."""

    key: int | str = Field(description="the secret; text is hashed to 64 bits")
    context_width: int = Field(2, ge=1, description="tokens of context that the order depends on")


class Unbiased(genmode.Watermarker):
    """The gamma-reweight. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "unbiased"
    paper = "Hu et al. 2023, https://arxiv.org/abs/2310.10669"
    keeps_distribution = True
    Params: ClassVar[type[genmode.Params]] = UnbiasedParams

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.key = keyed_hash.number(self.params.key)
        self.alpha = float(getattr(self.params, "alpha", 0.5))
        self._work: Reweight | None = None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        width = self.params.context_width
        contexts, ready = current(history, width)
        keys = keyed_hash.context_keys(self.key, contexts)
        fresh = occurrences(history, width) == 0
        work = self._work
        if work is None or work.shape != tuple(scores.shape) or work.mask.device != scores.device:
            work = self._work = Reweight(scores.shape[0], scores.shape[1], scores.device)
        return work(scores, keys, self.alpha, fresh if ready is None else fresh & ready)

    def reset(self) -> None:
        self._work = None

    def evidence(self, tokens: Tensor, gist: Tensor | None) -> genmode.Evidence:
        contexts, following, where = of_texts(tokens, self.params.context_width)
        keys = keyed_hash.context_keys(self.key, contexts)
        late = keyed_hash.bit_at(keys, following).double()
        return genmode.Evidence(laid_out(where, late, torch.nan), laid_out(where, keys, 0))

    def null(self) -> genmode.Null:
        return Bernoulli(0.5)


class Dip(Unbiased):
    """DiPmark. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "dip"
    paper = "Wu et al. 2023, https://arxiv.org/abs/2310.07710"

    class Params(UnbiasedParams):
        alpha: float = Field(
            0.45, ge=0, le=0.5, description="share of the order that is cut off, and that counts twice"
        )


class Reweight:
    """The alpha-reweight of rows of one shape, in buffers that are used again.

    Along ids the factor of a token, 0, 1 or 2, changes at two ids, each in one of the halves. So it is set for each
    half of each block of 256 ids, as the bits of a float32, and chosen by the token's bit; the two blocks in which it
    changes are done token by token.
    """

    def __init__(self, rows: int, vocab: int, device: torch.device) -> None:
        self.shape = (rows, vocab)
        self.blocks = (rows, -(-vocab // BLOCK), BLOCK)
        self.shares, self.lates = (torch.zeros(self.blocks, device=device) for _ in range(2))
        self.mask, self.change = (torch.zeros(self.blocks, dtype=torch.int32, device=device) for _ in range(2))

    def __call__(self, scores: Tensor, keys: Tensor, alpha: float, rows: Tensor) -> Tensor:
        """`scores` reweighted in place, in the rows `[rows]`, bool."""
        (count, vocab), (_, blocks, _) = self.shape, self.blocks
        flat = (count, blocks * BLOCK)
        shares = self.shares.view(flat)
        if flat[1] == vocab:
            torch.softmax(scores, -1, out=shares)
        else:
            shares[:, :vocab] = torch.softmax(scores, -1)
        self.mask.view(flat)[:, :vocab] = keyed_hash.bits(keys, vocab).view(torch.int8).neg_()  # 0 or all bits
        torch.bitwise_and(self.shares.view(torch.int32), self.mask, out=self.lates.view(torch.int32))
        mass, high = self.shares.sum(-1).double(), self.lates.sum(-1).double()
        halves = torch.stack([mass - high, high], 1).clamp_(min=0)  # [rows, 2, blocks]
        total, ends = halves.sum((1, 2)), halves.cumsum(2)
        down = (counter.words(keys, 3, torch.zeros(1, dtype=torch.int64, device=keys.device))[:, 0] & 1).bool()
        bounds, times = ((0.5,), 2) if alpha == 0.5 else ((alpha, 1 - alpha), 1)
        cuts = [self._cut(bound * total, ends, down, times) for bound in bounds]

        factor = cuts[0].factor if len(cuts) == 1 else cuts[0].factor + cuts[1].factor  # [rows, 2, blocks]
        rows = rows & ~total.isnan()  # a row that is masked throughout has no order
        change = factor.log().masked_fill_(~rows[:, None, None], 0.0)
        low, high_change = (change[:, side, :, None].contiguous().view(torch.int32) for side in (0, 1))
        torch.bitwise_and(self.mask, low ^ high_change, out=self.change).bitwise_xor_(low)
        for cut in cuts:
            mine = factor.gather(2, cut.block[:, None, None].expand(-1, 2, 1))[:, :, 0]  # [rows, 2]
            side = -self.mask.gather(1, cut.place)[:, 0].long()  # [rows, BLOCK]
            inner = mine.gather(1, side)
            for other in cuts:
                inner += other.above * ((other.block == cut.block)[:, None] & (side == other.side[:, None]))
            logs = inner.log().masked_fill_(~rows[:, None], 0.0).view(torch.int32)
            self.change.scatter_(1, cut.place, logs[:, None])
        return scores.add_(self.change.view(torch.float32).view(flat)[:, :vocab])

    def _cut(self, target: Tensor, ends: Tensor, down: Tensor, times: int) -> Cut:
        """Where along the order the mass `target` `[rows]` is reached; `ends` `[rows, 2, blocks]` is cumulated by id."""
        blocks = ends.shape[2]
        first = ends[:, 0, -1]
        side = (target >= first).long()
        mine = ends.gather(1, side[:, None, None].expand(-1, 1, blocks))[:, 0]  # [rows, blocks]
        inner = target - side * first
        inner = torch.where(down, mine[:, -1] - inner, inner).clamp_(min=0)  # from the lowest id on
        block = (mine <= inner[:, None]).sum(1).clamp_(max=blocks - 1)
        number = torch.arange(blocks, device=ends.device)
        later = torch.where(down[:, None], number < block[:, None], number > block[:, None])
        sides = torch.arange(2, device=ends.device)
        here, beyond = (sides == side[:, None])[:, :, None], (sides > side[:, None])[:, :, None]
        factor = torch.where(here, later[:, None], beyond).float().mul_(times)

        place = block[:, None, None].expand(-1, 1, BLOCK)
        late = self.lates.gather(1, place)[:, 0].double()
        part = torch.where(side[:, None] == 1, late, self.shares.gather(1, place)[:, 0] - late)
        before = mine.gather(1, block[:, None]) - part.sum(1, keepdim=True)
        lower = before + part.cumsum(1) - part
        below = ((inner[:, None] - lower) / part.clamp(min=1e-300)).clamp_(0, 1)  # what of the token lies below, by id
        above = torch.where(down[:, None], below, 1 - below).float().mul_(times)
        return Cut(side, block, place, above, factor)


class Cut(NamedTuple):
    """A point of the order: everything above it counts once more, or twice where two points are one.

    Attributes:
        side, block: `[rows]`, long: the half and the block of ids that it lies in.
        place: `[rows, 1, BLOCK]`, the block for `gather`.
        above: `[rows, BLOCK]`, float32: how often each of the block's tokens of that half counts more.
        factor: `[rows, 2, blocks]`, float32: the same for each half of each block, 0 in this very one.
    """

    side: Tensor
    block: Tensor
    place: Tensor
    above: Tensor
    factor: Tensor
