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
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import counter_rng as counter
from genmode.sampling import numpy_reads
from genmode.watermark import Bernoulli

from . import keyed_hash
from .contexts import current, laid_out, occurrences, of_texts
from .green import KeyParams

BLOCK = 256
OCTETS = BLOCK // 8
PART = 1 << 18
"""Scores that are worked on at a time on a CPU."""
LOG2_E = math.log2(math.e)
LEAST = 1e-300
LOGS = (-math.inf, 0.0, math.log(2))

Ids = NDArray[np.int64]
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


class UnbiasedParams(KeyParams):
    """Parameters of the gamma-reweight."""

    key: int | str = Field(description="the secret; text is hashed to 64 bits")
    context_width: int = Field(2, ge=1, le=4096, description="tokens of context that the order depends on")


class Unbiased(genmode.Watermarker):
    """The gamma-reweight. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "unbiased"
    paper = "Hu et al. 2023, https://arxiv.org/abs/2310.10669"
    traits: ClassVar[frozenset[genmode.Trait]] = frozenset({genmode.Trait.KEEPS_DISTRIBUTION})
    Params: ClassVar[type[genmode.Params]] = UnbiasedParams

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.key = keyed_hash.number(self.params.key)
        self.alpha = float(getattr(self.params, "alpha", 0.5))
        self._work: BlockReweight | None = None

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        width = self.params.context_width
        contexts, ready = current(history, width)
        keys = keyed_hash.context_keys(self.key, contexts)
        fresh = occurrences(history, width) == 0
        rows = fresh if ready is None else fresh & ready
        if not numpy_reads(scores):
            return reweighted(scores, keys, self.alpha, rows)
        if self._work is None or self._work.shape != tuple(scores.shape):
            self._work = BlockReweight(scores.shape[0], scores.shape[1])
        return self._work(scores, keys, self.alpha, rows)

    def reset(self) -> None:
        self._work = None

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
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


def reweighted(scores: Tensor, keys: Tensor, alpha: float, rows: Tensor) -> Tensor:
    """`scores` `[rows, vocab]` reweighted in place by the formula, token by token, in the rows `[rows]`, bool."""
    late = keyed_hash.bits(keys, scores.shape[1]) == 1
    shares = scores.softmax(-1, dtype=torch.float64)
    halves = torch.stack([shares.masked_fill(late, 0.0), shares.masked_fill(~late, 0.0)], 1)  # [rows, 2, vocab]
    upto = halves.cumsum(2)
    mass = upto[:, :, -1:]
    upto = torch.where(descending(keys)[:, :, None], mass - upto + halves, upto)
    ends = torch.where(late, mass[:, 0] + upto[:, 1], upto[:, 0])  # F behind each token
    total = mass.sum(1)
    factor = torch.zeros_like(ends)
    for cut in (alpha, 1 - alpha):
        factor += ((ends - cut * total) / shares.clamp(min=LEAST)).clamp_(0, 1)
    # a row that is masked throughout has no order
    return scores.add_(factor.to(scores.dtype).log_().masked_fill_(~rows[:, None] | total.isnan(), 0.0))


def descending(keys: Tensor) -> Tensor:
    """`[rows, 1]`, bool: whether the halves are in descending order of ids."""
    return (counter.first_words(keys, torch.full_like(keys, 3)) & 1 == 1)[:, None]


class BlockReweight:
    """The same on a CPU, for rows of one shape, at a fraction of the cost.

    Along ids the factor of a token, 0, 1 or 2, changes at one or two cuts, each in one of the halves. So it is set for
    each half of each block of 256 ids, and put onto the scores by the bits of eight tokens at once; the blocks of the
    cuts are done token by token. The vocabulary is gone through in parts that stay in the cache.

    Probabilities are 2 ** ((score - best) log2 e), float32, and not divided by their sum: cuts are shares of the sum. A
    block's sum is rounded to float32, so that a cut may lie off by 1e-7 of the whole, as after a softmax in float32;
    all that follows is float64.
    What is smaller than the vocabulary is done by numpy, whose calls cost less than torch's.
    """

    def __init__(self, rows: int, vocab: int) -> None:
        self.shape = (rows, vocab)
        self.blocks = blocks = -(-vocab // BLOCK)
        count = min(blocks, max(1, PART // (rows * BLOCK)))
        self.parts = [slice(first, min(first + count, blocks)) for first in range(0, blocks, count)]
        self.work = tuple(torch.empty(rows, count * BLOCK) for _ in range(2))
        self.halves = torch.empty(rows, 2, blocks)  # probability of the tokens of each block whose bit is 0, and 1
        self.row = np.arange(rows)[:, None]
        self.order = np.arange(2 * blocks)

    @np.errstate(all="ignore")  # rows that are masked throughout are NaN, and left alone
    def __call__(self, scores: Tensor, keys: Tensor, alpha: float, rows: Tensor) -> Tensor:
        """`scores`, float32, reweighted in place, in the rows `[rows]`, bool."""
        blocks = self.blocks
        least = scores.amax(-1, keepdim=True) * -LOG2_E
        packed = keyed_hash.packed_bits(keys, blocks * BLOCK).unflatten(1, (-1, OCTETS))  # [rows, blocks, 32]
        down = descending(keys).numpy()
        self._add_up(scores, least, packed)

        # along the order, in which a block of a half stands where it stands by id, or from the end
        halves = self.halves.numpy()
        masses = np.where(down[:, :, None], halves[:, :, ::-1], halves).reshape(len(halves), -1).astype(np.float64)
        ends = masses.cumsum(1)  # [rows, 2 blocks]
        shares, times = ((0.5,), 2) if alpha == 0.5 else ((alpha, 1 - alpha), 1)
        targets = ends[:, -1:] * shares  # [rows, cuts]
        cuts = np.minimum((ends[:, None] <= targets[:, :, None]).sum(2), 2 * blocks - 1)  # the blocks that hold them

        beyond = times * (self.order > cuts[:, :, None]).sum(1).reshape(-1, 2, blocks)
        pair = 3 * beyond[:, 0] + beyond[:, 1]  # [rows, blocks]
        pair = np.where(down, pair[:, ::-1], pair)
        keep = rows.numpy()[:, None] & ~np.isnan(ends[:, -1:])
        place = cuts % blocks
        before = ends - masses
        starts = [before[self.row, place + half * blocks] for half in range(2)]  # [rows, cuts]
        block = np.where(down, blocks - 1 - place, place)
        ids, new = self._inside(scores, least, packed, block, starts, targets, down, times, keep)
        self._put(scores, packed, torch.from_numpy(np.where(keep, pair, 4).astype(np.int16)))  # 4 stands for 1 and 1
        scores.numpy()[self.row[:, :, None], ids] = new
        return scores

    def _add_up(self, scores: Tensor, least: Tensor, packed: Tensor) -> None:
        for part in self.parts:
            some = scores[:, part.start * BLOCK : part.stop * BLOCK]
            shares, late = (work[:, : (part.stop - part.start) * BLOCK] for work in self.work)
            if some.shape[1] < shares.shape[1]:
                some = torch.nn.functional.pad(some, (0, shares.shape[1] - some.shape[1]), value=-torch.inf)
            torch.add(least, some, alpha=LOG2_E, out=shares).exp2_()
            late.copy_(keyed_hash.unpacked(packed[:, part].flatten(1))).mul_(shares)
            low, high = self.halves[:, 0, part], self.halves[:, 1, part]
            torch.sum(late.unflatten(1, (-1, BLOCK)), -1, out=high)
            torch.sum(shares.unflatten(1, (-1, BLOCK)), -1, out=low).sub_(high).clamp_(min=0)

    def _put(self, scores: Tensor, packed: Tensor, pair: Tensor) -> None:
        """Add the logarithms of the factors; `pair` `[rows, blocks]`, int16: those of a block's halves, see `changes`."""
        table = changes()
        for part in self.parts:
            some = scores[:, part.start * BLOCK : part.stop * BLOCK]
            codes = (packed[:, part] + 256 * pair[:, part, None]).flatten(1)
            change = torch.from_numpy(np.take(table, codes.numpy(), axis=0, mode="clip")).flatten(1)
            some.add_(change[:, : some.shape[1]])

    def _inside(
        self, scores: Tensor, least: Tensor, packed: Tensor, block: Ids, starts: list[Reals], targets: Reals,
        down: Flags, times: int, keep: Flags,
    ) -> tuple[Ids, NDArray[np.float32]]:  # fmt: skip
        """The ids and new scores of the tokens of the cuts' blocks: `[rows, cuts, BLOCK]`.

        Args:
            block: `[rows, cuts]`.
            starts: for either half `[rows, cuts]`: F before the block's tokens of that half.
            targets: `[rows, cuts]`: F at the cuts.
            down, keep: `[rows, 1]`: whether ids descend, and whether the row is changed.
        """
        row, first = self.row[:, :, None], block[:, :, None] * BLOCK
        ids = known = first + np.arange(BLOCK)
        within = int(ids.max()) < self.shape[1]
        if not within:
            known = np.minimum(ids, self.shape[1] - 1)
        old = scores.numpy()[row, known]
        late = np.unpackbits(packed.numpy()[self.row, block], axis=2, bitorder="little")
        share = np.exp2(old.astype(np.float64) * LOG2_E + least.numpy()[:, :, None])
        if not within:
            share *= known == ids
        high = share * late
        behind: list[Reals] = []
        for start, mine in zip(starts, (share - high, high), strict=True):
            upto = mine.cumsum(2)
            behind.append(start[:, :, None] + np.where(down[:, :, None], upto[:, :, -1:] - upto + mine, upto))
        end = np.where(late, behind[1], behind[0])  # F behind each token
        beyond = (end[:, :, None] - targets[:, None, :, None]) / np.maximum(share, LEAST)[:, :, None]
        change = np.log((times * beyond.clip(0, 1).sum(2)).astype(np.float32))
        new = np.where(keep[:, :, None], old + change, old)
        # what stands behind the vocabulary has the last token's id, and has to say the same of it
        return known, new if within else np.take_along_axis(new, known - first, 2)


@functools.cache
def changes() -> NDArray[np.float32]:
    """`[9 * 256, 8]`; row 256 (3 a + b) + octet: log a for each bit that is 0, log b for each that is 1."""
    bits = keyed_hash.unpacked(torch.arange(256, dtype=torch.uint8)[:, None]) == 1
    return torch.cat([torch.where(bits, b, a) for a in LOGS for b in LOGS]).numpy()
