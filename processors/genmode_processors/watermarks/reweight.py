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

import functools
import math
from typing import Any, ClassVar

import numpy as np
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
OCTETS = BLOCK // 8
PART = 1 << 18
"""Scores that are worked on at a time on a CPU."""
LOG2_E = math.log2(math.e)
LOGS = (-math.inf, 0.0, math.log(2))


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
        if work is None or work.shape != tuple(scores.shape) or work.halves.device != scores.device:
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
    """The alpha-reweight of rows of one shape.

    Along ids the factor of a token, 0, 1 or 2, changes at two ids, each in one of the halves. So it is set for each
    half of each block of 256 ids, and put onto the scores by the bits of eight tokens at once; the two blocks in which
    it changes are done token by token. On the CPU the vocabulary is gone through in parts that stay in the cache.

    Probabilities are 2 ** ((score - best) log2 e), not divided by their sum: cuts are shares of the sum.
    """

    def __init__(self, rows: int, vocab: int, device: torch.device) -> None:
        self.shape = (rows, vocab)
        self.blocks = blocks = -(-vocab // BLOCK)
        count = min(blocks, max(1, PART // (rows * BLOCK))) if device.type == "cpu" else blocks
        self.parts = [slice(first, min(first + count, blocks)) for first in range(0, blocks, count)]
        self.work = tuple(torch.empty(rows, count * BLOCK, device=device) for _ in range(2))
        self.halves = torch.empty(rows, 2, blocks, device=device)  # probability of the bits 0 and 1 of each block
        self.number = torch.arange(2 * blocks, device=device).view(2, blocks)
        self.ids = torch.arange(BLOCK, device=device)

    def __call__(self, scores: Tensor, keys: Tensor, alpha: float, rows: Tensor) -> Tensor:
        """`scores` reweighted in place, in the rows `[rows]`, bool."""
        least = scores.amax(-1, keepdim=True) * -LOG2_E
        packed = keyed_hash.packed_bits(keys, self.blocks * BLOCK)  # [rows, 32 blocks]
        bits = keyed_hash.unpacked(packed)
        down = counter.words(keys, 3, torch.zeros(1, dtype=torch.int64, device=keys.device)) & 1 == 1  # [rows, 1]
        self._add_up(scores, least, bits)

        # where in the order each half of each block stands; it is its own inverse
        order = torch.where(down[:, :, None], self.number.flip(1), self.number)  # [rows, 2, blocks]
        masses = self.halves.flatten(1).gather(1, order.flatten(1)).double()  # [rows, 2 blocks], along the order
        ends = masses.cumsum(1)
        total = ends[:, -1]
        shares, times = ((0.5,), 2) if alpha == 0.5 else ((alpha, 1 - alpha), 1)
        targets = torch.stack([share * total for share in shares], 1)  # [rows, cuts]
        cuts = torch.searchsorted(ends, targets, right=True).clamp_(max=ends.shape[1] - 1)

        block = order.flatten(1).gather(1, cuts) % self.blocks  # [rows, cuts]
        halves = order.gather(2, block[:, None].expand(-1, 2, -1)).flatten(1)  # [rows, 2 cuts]
        starts = (ends - masses).gather(1, halves).unflatten(1, (2, -1))
        ids, old, changed = self._inside(scores, least, bits, block, starts, targets, down, times)

        rows = rows & ~total.isnan()  # a row that is masked throughout has no order
        beyond = (order[:, None] > cuts[:, :, None, None]).sum(1).mul_(times)  # [rows, 2, blocks]
        pair = (3 * beyond[:, 0] + beyond[:, 1]).masked_fill_(~rows[:, None], 4)  # 4 stands for 1 and 1
        self._put(scores, packed, pair.short())
        return scores.scatter_(1, ids, old + changed.masked_fill_(~rows[:, None], 0.0))

    def _add_up(self, scores: Tensor, least: Tensor, bits: Tensor) -> None:
        """Fill `halves` with the probabilities of the tokens of each block whose bit is 0, and 1."""
        for part in self.parts:
            some = scores[:, part.start * BLOCK : part.stop * BLOCK]
            shares, late = (work[:, : (part.stop - part.start) * BLOCK] for work in self.work)
            torch.add(least, some, alpha=LOG2_E, out=shares[:, : some.shape[1]])
            shares[:, some.shape[1] :] = -torch.inf
            late.copy_(bits[:, part.start * BLOCK : part.stop * BLOCK]).mul_(shares.exp2_())
            low, high = self.halves[:, 0, part], self.halves[:, 1, part]
            torch.sum(late.unflatten(1, (-1, BLOCK)), -1, out=high)
            torch.sum(shares.unflatten(1, (-1, BLOCK)), -1, out=low).sub_(high).clamp_(min=0)

    def _put(self, scores: Tensor, packed: Tensor, pair: Tensor) -> None:
        """Add the logarithms of the factors; `pair` `[rows, blocks]`, int16: those of a block's halves, see `changes`."""
        table = changes(scores.device)
        for part in self.parts:
            some = scores[:, part.start * BLOCK : part.stop * BLOCK]
            octets = packed[:, part.start * OCTETS : part.stop * OCTETS].unflatten(1, (-1, OCTETS))
            codes = octets + 256 * pair[:, part, None]
            some.add_(eights(codes.flatten(1), table)[:, : some.shape[1]])

    def _inside(
        self, scores: Tensor, least: Tensor, bits: Tensor, block: Tensor, starts: Tensor, targets: Tensor, down: Tensor,
        times: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Ids, scores, and what to add to them, of the tokens of the cuts' blocks: `[rows, cuts BLOCK]`.

        Args:
            block: `[rows, cuts]`.
            starts: `[rows, 2, cuts]`: the probability before the block's halves, along the order.
            targets: `[rows, cuts]`: the cuts, as probability along the order.
        """
        first = block[:, :, None] * BLOCK
        ids = first + self.ids  # [rows, cuts, BLOCK]
        known = ids.clamp(max=self.shape[1] - 1)
        old = scores.gather(1, known.flatten(1))
        late = bits.gather(1, ids.flatten(1)).view_as(ids)
        share = torch.add(least, old, alpha=LOG2_E).exp2_().view_as(ids).where(known == ids, 0.0).double()
        high = share * late
        halves = torch.stack([share - high, high], 1)  # [rows, 2, cuts, BLOCK]
        upto = halves.cumsum(3)
        upto = starts[:, :, :, None] + torch.where(down[:, :, None, None], upto[:, :, :, -1:] - upto + halves, upto)
        end = torch.where(late == 1, upto[:, 1], upto[:, 0])  # where each token ends, along the order
        beyond = (end[:, :, None] - targets[:, None, :, None]) / share.clamp(min=1e-300)[:, :, None]
        change = beyond.clamp_(0, 1).sum(2).mul_(times).log_().to(old.dtype)  # [rows, cuts, BLOCK]
        # what stands behind the vocabulary has the last token's id, and has to say the same of it
        return known.flatten(1), old, change.gather(2, known - first).flatten(1)


def eights(codes: Tensor, table: Tensor) -> Tensor:
    """Eight numbers for each code: `codes` `[rows, n]`, integers, and `table` `[codes, 8]` to `[rows, 8 n]`."""
    if codes.device.type == "cpu":  # half of the time of torch's own
        return torch.from_numpy(np.take(table.numpy(), codes.numpy(), axis=0, mode="clip")).flatten(1)
    return table[codes.int()].flatten(1)


@functools.cache
def changes(device: torch.device) -> Tensor:
    """`[9 * 256, 8]`, float32; row 256 (3 a + b) + octet: log a for each bit that is 0, log b for each that is 1."""
    bits = keyed_hash.unpacked(torch.arange(256, dtype=torch.uint8, device=device)[:, None]) == 1
    return torch.cat([torch.where(bits, b, a) for a in LOGS for b in LOGS])
