"""SynthID-Text (Dathathri et al. 2024, "Scalable watermarking for identifying large language model outputs",
Nature 634), tokens and scores as transformers' `SynthIDTextWatermarkLogitsProcessor`.

Tournament sampling with two players: with g_l(v) in {0, 1} the l-th coin of token v after the present context,

    p <- p (1 + g_l - sum over u of p(u) g_l(u)),    l = 1 .. depth;    score = log p

The coins are those of transformers: a linear congruential generator, h <- (h + x) 6364136223846793005 + 1 mod 2^64,
runs over the n - 1 tokens of context, the token and the layer's key, and its value modulo the table's size picks a
bit of a fixed random table. The context has decoded tokens alone, zeros before the first, and a context that is
among the last `context_history_size` ones of its row is left unmarked.

Where the table's size is a power of two, all coins of a token are a function of (context hash + token) modulo that
size, so that a row's coins are a stretch of one table that is made once, and nothing is hashed in a step.

Detection: each token with a full context of its own says the sum of its coins, layer l with weight
10 - 9 (l - 1) / (depth - 1) (the paper's weighted mean), or with `synthid_beta` its log-likelihood ratio (the
Bayesian detector): layer l's two players differ with probability s_l = sigmoid(beta_l + sum over k < l of
delta_lk g_k), and P(g_l | mark) = (1 + s_l (g_l - 1/2)) / 2. Contexts count once. Without the mark coins are fair,
so that the null is the exact convolution of one token's distribution; for log-likelihood ratios that are rounded to
1/4000 of their range, over all patterns of coins, or 65536 drawn ones with more than 16 layers.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.watermark import Lattice, first_of_each

from . import keyed_hash
from .contexts import laid_out, of_texts
from .green import KeyParams

MULTIPLIER = 6364136223846793005
ROUNDS = 4000
PATTERNS = 16


class SynthId(genmode.Watermarker, genmode.StandIn):
    """Tournament sampling as in transformers. Stage watermark; returns a new tensor; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "synthid"
    paper = "Dathathri et al. 2024, https://www.nature.com/articles/s41586-024-08025-4"
    replaces = ("SynthIDTextWatermarkLogitsProcessor",)
    traits = frozenset({genmode.Trait.KEEPS_DISTRIBUTION})

    class Params(KeyParams):
        key: int | str | None = Field(None, description="the secret that the layers' keys are made of")
        keys: tuple[int, ...] | None = Field(None, min_length=1, description="the layers' keys, in place of key")
        depth: int = Field(30, ge=1, le=60, description="how many layers are made of key")
        ngram_len: int = Field(5, ge=2, description="tokens that a coin depends on, the token itself included")
        sampling_table_size: int = Field(2**16, ge=1, le=2**24, description="size of the table of coins")
        sampling_table_seed: int = Field(0, description="seed of the table of coins")
        generator_device: Literal["cpu", "cuda"] = Field(
            "cpu", description="whose generator draws that table; transformers draws it where the model is"
        )
        context_history_size: int = Field(1024, ge=1, description="how many contexts of a row are remembered")
        skip_first_ngram_calls: bool = Field(False, description="leave the first ngram_len - 1 tokens unmarked")
        synthid_beta: tuple[float, ...] | None = Field(
            None, description="the Bayesian detector's beta of each layer, see fit; None for the weighted mean"
        )
        synthid_delta: tuple[tuple[float, ...], ...] | None = Field(
            None, description="its delta, one row a layer; zeros if not given"
        )

        @model_validator(mode="after")
        def _fits(self) -> Any:
            if self.key is not None and self.keys is not None:
                raise ValueError("key and keys are both given; give one of them")
            layers = self.depth if self.keys is None else len(self.keys)
            for name, given in (("synthid_beta", self.synthid_beta), ("synthid_delta", self.synthid_delta)):
                if given is not None and len(given) != layers:
                    raise ValueError(f"{name} has {len(given)} entries for {layers} layers")
            return self

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        if self.params.key is None and self.params.keys is None:
            raise genmode.ParameterError("watermarker 'synthid': key has to be given, or keys, one for each layer")
        self.context = self.params.ngram_len - 1
        if self.params.keys is not None:
            self.keys = torch.tensor([keyed_hash.number(key) for key in self.params.keys])
        else:
            seed = keyed_hash.number(cast("int | str", self.params.key))
            labels = torch.arange(self.params.depth)
            self.keys = keyed_hash.derive(torch.full_like(labels, seed), labels) & (2**31 - 1)
        self.depth = len(self.keys)
        self._table: Tensor | None = None  # [size], int64
        self._layers: Tensor | None = None  # [depth, size + vocab], float32

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> genmode.LogitsProcessor | None:
        """The equal of transformers' processor; None in its debug mode."""
        if theirs.debug_mode or theirs.context_history_size < 1:
            return None
        made = cls(
            keys=tuple(theirs.keys.tolist()), ngram_len=theirs.ngram_len,
            sampling_table_size=len(theirs.sampling_table), context_history_size=theirs.context_history_size,
            skip_first_ngram_calls=theirs.skip_first_ngram_calls,
        )  # fmt: skip
        made._table = theirs.sampling_table
        return made

    def table(self, device: torch.device) -> Tensor:
        """The table of coins: `[size]`, int64."""
        if self._table is None:
            place = torch.device(self.params.generator_device)
            generator = torch.Generator(device=place).manual_seed(self.params.sampling_table_seed)
            size = (self.params.sampling_table_size,)
            self._table = torch.randint(0, 2, size, generator=generator, device=place)
        self._table = self._table.to(device)
        return self._table

    # marking ---------------------------------------------------------------------------------------

    def begin(self, context: genmode.Context) -> None:
        self._coins(torch.zeros(1, dtype=torch.long, device=context.device), context.vocab_size)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        hashes, fresh = self._contexts(history)
        coins = self._coins(hashes, scores.shape[1])
        shares = torch.softmax(scores, dim=1)
        product = torch.empty_like(shares)
        for layer in range(self.depth):
            heads = coins(layer)
            torch.mul(heads, shares, out=product)
            shares.mul_(heads.add_(1).sub_(product.sum(1, keepdim=True)))
        logs = shares.log_().nan_to_num_(nan=_LOWEST, posinf=_LOWEST, neginf=_LOWEST)
        return logs if fresh is None else torch.where(fresh[:, None], logs, scores)

    def _contexts(self, history: genmode.History) -> tuple[Tensor, Tensor | None]:
        """The hash of each row's present context, and which rows are marked; None if the host knows that all are."""
        tokens = history.tokens[:, history.prompt :]
        before = tokens.new_zeros(history.rows, self.context)
        windows = torch.cat([before, tokens], 1).unfold(1, self.context, 1)  # [rows, decoded + 1, context]
        hashes = lcg(torch.ones(windows.shape[:2], dtype=torch.long, device=tokens.device), windows)
        decoded = (history.lengths - history.prompt)[:, None]  # [rows, 1]
        present = hashes.gather(1, decoded)
        column = torch.arange(hashes.shape[1], device=tokens.device)
        seen = (column < decoded) & (column >= decoded - self.params.context_history_size)
        if self.params.skip_first_ngram_calls:
            seen &= column >= self.context
        fresh = ~((hashes == present) & seen).any(1)
        if self.params.skip_first_ngram_calls:
            fresh &= decoded[:, 0] >= self.context
        return present[:, 0], None if host_sync.surely_all(fresh) else fresh

    def _coins(self, hashes: Tensor, vocab: int) -> Any:
        """A function of the layer that gives its coins, `[rows, vocab]`, float32, new each time."""
        table, size = self.table(hashes.device), self.params.sampling_table_size
        keys = self.keys = self.keys.to(hashes.device)
        if size & (size - 1):
            word = lcg(hashes[:, None].expand(-1, vocab), torch.arange(vocab, device=hashes.device)[None, :, None])
            return lambda layer: table[lcg(word, keys[layer].view(1, 1, 1)) % size].float()
        if self._layers is None or self._layers.shape[1] != size + vocab or self._layers.device != hashes.device:
            sums = torch.arange(size + vocab, device=hashes.device)
            words = lcg(torch.zeros_like(sums), sums[:, None])
            layers = [lcg(words, key.view(1, 1)) % size for key in keys]
            self._layers = torch.stack([table[layer].float() for layer in layers])
        views = self._layers.unfold(1, vocab, 1)  # [depth, size + 1, vocab]
        offsets = hashes & (size - 1)
        return lambda layer: views[layer].index_select(0, offsets)

    def reset(self) -> None:
        self._layers = None

    # detection -------------------------------------------------------------------------------------

    def coins_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The coins of all tokens with a context: `[n, depth]`, int64, their contexts' hashes `[n]`, and where."""
        contexts, following, where = of_texts(tokens, self.context)
        hashes = lcg(torch.ones_like(following), contexts)
        table = self.table(tokens.device)
        words = lcg(hashes, following[:, None])
        keys = self.keys.to(tokens.device)
        places = lcg(words[:, None].expand(-1, self.depth), keys[None, :, None].expand(len(words), -1, 1))
        return table[places % len(table)], hashes, where

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        coins, hashes, where = self.coins_of(tokens)
        values = self._rounded(self._says(coins.double().cpu())).to(tokens.device)
        return genmode.Evidence(laid_out(where, values, torch.nan), laid_out(where, hashes, 0))

    def null(self) -> genmode.Null:
        return self._null

    def posterior(self, tokens: Tensor, prior: float = 0.5) -> Tensor:
        """The Bayesian detector's probability that a text is marked.

        Args:
            tokens: `[texts, length]`, long; negative ids are padding.
            prior: the share of texts that are marked.

        Returns:
            `[texts]`, float64.

        Raises:
            ParameterError: the component has no `synthid_beta`.
        """
        if self.params.synthid_beta is None:
            raise genmode.ParameterError("the posterior needs synthid_beta, which SynthId.fit finds in marked texts")
        coins, hashes, where = self.coins_of(tokens)
        ratios = laid_out(where, self._says(coins.double().cpu()).to(tokens.device), 0.0)
        draws = laid_out(where, hashes, 0)
        counted = torch.stack([first_of_each(d, w) for d, w in zip(draws.cpu(), where.cpu(), strict=True)])
        odds = (ratios.cpu() * counted).sum(1) + float(np.log(prior / (1 - prior)))
        return odds.sigmoid()

    def fit(self, tokens: Tensor) -> tuple[float, ...]:
        """The `synthid_beta` of marked texts `[texts, length]`, without delta: maximum likelihood.

        P(g_l = 1 | mark) = 1/2 + s_l / 4, so that s_l = 4 (mean of g_l - 1/2), kept within 0.001 .. 0.999.
        """
        coins, _, _ = self.coins_of(tokens)
        shares = (4 * (coins.double().mean(0) - 0.5)).clamp(0.001, 0.999)
        return tuple(shares.logit().tolist())

    def _says(self, coins: Tensor) -> Tensor:
        """What coins `[n, depth]`, float64, say for the mark: `[n]`."""
        beta, delta = self.params.synthid_beta, self.params.synthid_delta
        if beta is None:
            return coins @ _weights(self.depth)
        logits = torch.tensor(beta, dtype=torch.float64).expand(len(coins), -1)
        if delta is not None:
            logits = logits + coins @ torch.tensor(delta, dtype=torch.float64).tril(-1).T
        return ((coins - 0.5) * logits.sigmoid()).log1p().sum(1)

    def _rounded(self, values: Tensor) -> Tensor:
        null = self._null
        return null.first + null.spacing * ((values - null.first) / null.spacing).round()

    @cached_property
    def _null(self) -> Lattice:
        if self.params.synthid_beta is None:
            return _mean_null(self.depth)
        if self.depth <= PATTERNS:
            patterns = (torch.arange(2**self.depth)[:, None] >> torch.arange(self.depth)) & 1
        else:
            patterns = torch.randint(0, 2, (2**PATTERNS, self.depth), generator=torch.Generator().manual_seed(0))
        values = self._says(patterns.double()).numpy()
        first = float(values.min())
        spacing = max(float(values.max()) - first, 1e-9) / ROUNDS
        counts = np.bincount(np.rint((values - first) / spacing).astype(np.int64), minlength=ROUNDS + 1)
        return Lattice(counts.astype(np.float64), first, spacing)


def _weights(depth: int) -> Tensor:
    """The weighted mean's integer weights: 10 (depth - 1) - 9 l, and 1 if there is one layer; `[depth]`."""
    if depth == 1:
        return torch.ones(1, dtype=torch.float64)
    return 10.0 * (depth - 1) - 9.0 * torch.arange(depth, dtype=torch.float64)


@lru_cache(maxsize=16)
def _mean_null(depth: int) -> Lattice:
    shares = np.ones(1)
    for weight in _weights(depth).long().tolist():
        grown = np.zeros(len(shares) + weight)
        grown[: len(shares)] = shares / 2
        grown[weight:] += shares / 2
        shares = grown
    return Lattice(shares)


_LOWEST = torch.finfo(torch.float32).min


def lcg(words: Tensor, data: Tensor) -> Tensor:
    """The hash after `data` `[..., n]`, one number after the other, on top of `words` `[...]`; int64."""
    for place in range(data.shape[-1]):
        words = (words + data[..., place]) * MULTIPLIER + 1
    return words
