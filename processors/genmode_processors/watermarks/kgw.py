"""KGW (Kirchenbauer et al. 2023, "A Watermark for Large Language Models" and "On the Reliability of Watermarks"),
token for token as transformers' `WatermarkLogitsProcessor`.

A seed puts the vocabulary in an order, torch's `randperm` of a generator with that seed; its first
int(vocab * greenlist_ratio) tokens are green, and gain `bias`:

    lefthash    seed = key * x_t mod (2^64 - 1), x_t the row's last token, whatever the context width
    selfhash    seed = key * min over the last context_width tokens y, the candidate v being one of them, of
                (table[y] + 1) * (table[v] + 1); done for the 40 best candidates, of which those are raised that are
                green under their own seed

Orders are kept by seed, most recent ones first to stay. A generator is seeded on the host, one after the other, so
new contexts cost what they cost in transformers, and on a device the host waits for the tokens; the order also
depends on the kind of device, so text that was marked on CUDA is read on CUDA. genmode's own schemes have none of
this. A row with fewer tokens of its own than the context is wide is left unmarked, as transformers leaves it alone;
its left padding is no context. Scores are those of transformers on ties too: where the 40th best is tied, the sort
decides. Detection counts each (seed, token) once, which is finer than n-grams: tokens under one seed are drawn
without replacement, so that the binomial null is exact or errs on the side of caution.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.watermark import Bernoulli

from . import keyed_hash
from .contexts import current, laid_out, of_texts
from .green import KeyParams

TABLE = 1_000_003
CANDIDATES = 40
KEPT_BYTES = 1 << 26
"""Memory for green lists that are kept, one byte a token."""
KEPT_BITS = 1 << 20
"""How many answers of selfhash are kept."""


class Kgw(genmode.Watermarker, genmode.StandIn):
    """Green lists as in transformers. Stage watermark; writes in place; `[rows, vocab]` of any floating type."""

    contract_version = 1
    name = "kgw"
    paper = "Kirchenbauer et al. 2023, https://arxiv.org/abs/2301.10226 and https://arxiv.org/abs/2306.04634"
    replaces = ("WatermarkLogitsProcessor",)

    class Params(KeyParams):
        key: int | str = Field(description="the secret, transformers' hashing_key; text is hashed to 63 bits")
        greenlist_ratio: float = Field(0.25, gt=0, lt=1, description="share of green tokens")
        bias: float = Field(2.0, gt=0, description="what green tokens' scores gain")
        seeding_scheme: Literal["lefthash", "selfhash"] = Field("lefthash", description="what the green list hashes")
        context_width: int = Field(
            1, ge=1, le=4096, description="tokens that selfhash looks at, the candidate included"
        )
        vocab_size: int | None = Field(
            None, ge=2, description="length of a row of the model's scores; needed to detect without the model"
        )
        generator_device: Literal["cpu", "cuda"] | None = Field(
            None, description="whose generator orders the vocabulary; that of the device if not given"
        )

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        key = self.params.key
        self.key = key if isinstance(key, int) else keyed_hash.number(key) & (2**63 - 1)
        self._lists: GreenLists | None = None

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> genmode.LogitsProcessor | None:
        """The equal of transformers' theirs."""
        # half a token more, so that the product with the vocabulary is rounded down to the same count
        ratio = (theirs.greenlist_size + 0.5) / theirs.vocab_size
        return cls(
            key=theirs.hash_key, greenlist_ratio=ratio,
            bias=theirs.bias, seeding_scheme=theirs.seeding_scheme, context_width=theirs.context_width,
            vocab_size=theirs.vocab_size,
        )  # fmt: skip

    def lists(self, vocab: int, device: torch.device) -> GreenLists:
        """The green lists of a vocabulary, ordered by the generator of `generator_device`, else of this device."""
        vocab = self.params.vocab_size or vocab
        device = device if self.params.generator_device is None else torch.device(self.params.generator_device)
        if self._lists is None or self._lists.vocab != vocab or self._lists.device != device:
            green = int(vocab * self.params.greenlist_ratio)
            self._lists = GreenLists(self.key, vocab, green, device)
        return self._lists

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        own, width = self.params.seeding_scheme == "selfhash", self.params.context_width
        lists = self.lists(scores.shape[1], scores.device)
        contexts, ready = current(history, width)
        if own:
            candidates = best_candidates(scores)
            green = lists.contain(lists.own_seeds(contexts[:, 1:], candidates), candidates).to(scores.device)
            if ready is not None:
                green &= ready[:, None]
            raised = scores.gather(1, candidates) + self.params.bias
            return scores.scatter_(1, candidates, raised.where(green, scores.gather(1, candidates)))
        green = lists.rows(lists.left_seeds(contexts[:, -1])).to(scores.device)
        if ready is not None:
            green = green * ready[:, None]
        scores[:, : lists.vocab].add_(green, alpha=self.params.bias)
        return scores

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        vocab = self.params.vocab_size
        if vocab is None:
            raise genmode.ParameterError(
                "watermarker 'kgw' orders the whole vocabulary; give vocab_size, the length of a row of the model's "
                "scores, or the model"
            )
        if (highest := int(tokens.max())) >= vocab:
            raise genmode.ParameterError(
                f"token {highest} is outside the vocabulary of {vocab}: the text was not tokenized for this model"
            )
        own = self.params.seeding_scheme == "selfhash"
        lists, tokens = self.lists(vocab, tokens.device), tokens.cpu()
        contexts, following, where = of_texts(tokens, self.params.context_width - 1 if own else 1)
        seeds = lists.own_seeds(contexts, following[:, None]) if own else lists.left_seeds(contexts[:, -1])[:, None]
        green = lists.contain(seeds, following[:, None])[:, 0].cpu().double()
        draws = keyed_hash.derive(seeds[:, 0], following)
        return genmode.Evidence(laid_out(where, green, torch.nan), laid_out(where, draws, 0))

    def null(self) -> genmode.Null:
        vocab, ratio = self.params.vocab_size, self.params.greenlist_ratio
        return Bernoulli(int(vocab * ratio) / vocab if vocab else ratio)


def best_candidates(scores: Tensor) -> Tensor:
    """`[rows, 40]`, long: the first 40 of each row's descending sort, in any order."""
    count = min(CANDIDATES, scores.shape[1])
    if scores.shape[1] <= count:
        return scores.argsort(-1, descending=True)
    values, tokens = scores.topk(count + 1)
    tied = (values[:, -1] == values[:, -2]) & (values[:, -1] > -torch.inf)
    if host_sync.surely_none(tied):
        return tokens[:, :count]
    return scores.sort(-1, descending=True).indices[:, :count]


class GreenLists:
    """The green lists of one key, by seed, as transformers' generator makes them.

    Attributes:
        vocab, green: how many tokens there are, and how many are green.
        device: whose generator orders them.
    """

    def __init__(self, key: int, vocab: int, green: int, device: torch.device) -> None:
        self.key, self.vocab, self.green, self.device = key, vocab, green, device
        self._generator = torch.Generator(device=device)
        self._table: Tensor | None = None
        self._kept = torch.empty(0, vocab, dtype=torch.uint8, device=device)
        self._capacity = max(16, KEPT_BYTES // vocab)
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._bits: dict[tuple[int, int], bool] = {}
        # the order of int32 is that of int64 on the CPU, and takes half the memory
        kind = torch.int32 if host_sync.is_free(device) else torch.int64
        self._order = torch.empty(vocab, dtype=kind, device=device)

    def left_seeds(self, last: Tensor) -> Tensor:
        """Seeds of the last tokens `[n]`: `[n]`, int64, of which the bits of the unsigned seed count."""
        seeds = [keyed_hash.number(self.key * token % (2**64 - 1)) for token in last.tolist()]
        return torch.tensor(seeds, dtype=torch.int64)

    def own_seeds(self, contexts: Tensor, candidates: Tensor) -> Tensor:
        """Seeds of `candidates` `[n, k]` after `contexts` `[n, width - 1]`: `[n, k]`, int64."""
        if self._table is None:
            self._generator.manual_seed(self.key)
            self._table = torch.randperm(TABLE, generator=self._generator, device=self.device)
        key = keyed_hash.number(self.key)
        contexts, candidates = contexts.to(self.device), candidates.to(self.device)
        theirs = self._table[candidates % TABLE] + 1
        seeds = key * theirs * theirs
        for column in range(contexts.shape[1]):
            word = self._table[contexts[:, column, None] % TABLE] + 1
            seeds = torch.minimum(seeds, key * word * theirs)
        negative = seeds < 0  # Python's remainder of a negative number by 2^64 - 1 is one less, as 64 bits
        return (seeds - negative.long()).cpu()

    def rows(self, seeds: Tensor) -> Tensor:
        """Which tokens are green under `seeds` `[n]`: `[n, vocab]`, float32."""
        wanted = set(seeds.tolist())
        for seed in wanted & self._slots.keys():
            self._slots.move_to_end(seed)
        slots = [self._slot(seed, wanted) for seed in seeds.tolist()]
        return self._kept.index_select(0, torch.tensor(slots, device=self.device)).float()

    def contain(self, seeds: Tensor, tokens: Tensor) -> Tensor:
        """Whether `tokens[i, j]` is green under `seeds[i, j]`: `[n, k]`, bool."""
        pairs = list(zip(seeds.flatten().tolist(), tokens.flatten().tolist(), strict=True))
        if len(self._bits) + len(pairs) > KEPT_BITS:
            self._bits.clear()
        missing: dict[int, list[int]] = {}
        for seed, token in set(pairs) - self._bits.keys():
            missing.setdefault(seed, []).append(token)
        for seed, some in missing.items():
            front = self._shuffled(seed)[: self.green]
            inside = [bool((front == token).any()) for token in some]
            self._bits.update({(seed, token): bit for token, bit in zip(some, inside, strict=True)})
        bits = torch.tensor([self._bits[pair] for pair in pairs], device=self.device)
        return bits.view(tokens.shape)

    def _shuffled(self, seed: int) -> Tensor:
        self._generator.manual_seed(seed % 2**64)
        return torch.randperm(self.vocab, generator=self._generator, out=self._order, device=self.device)

    def _slot(self, seed: int, wanted: set[int]) -> int:
        """Where the list of this seed is kept; the one that was wanted longest ago gives way."""
        if seed in self._slots:
            self._slots.move_to_end(seed)
            return self._slots[seed]
        if len(self._slots) == len(self._kept):
            oldest = next(iter(self._slots), seed)
            if len(self._kept) >= self._capacity and oldest not in wanted:
                slot = self._slots.pop(oldest)
            else:
                slot = len(self._slots)
                grown = self._kept.new_empty(max(16, 2 * slot), self.vocab)
                grown[:slot] = self._kept
                self._kept = grown
        else:
            slot = len(self._slots)
        self._slots[seed] = slot
        self._kept[slot].zero_()[self._shuffled(seed)[: self.green].long()] = 1
        return slot
