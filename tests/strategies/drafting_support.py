"""What the tests of drafting share: a model that repeats itself, forwards counted, and a test of distributions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import fresh

BANS = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "bad_words_ids": [[7], [44, 44], [42, 11]]}


def change_nothing(drafts: dict[str, Any], model: Any, inputs: dict[str, Any], bans: dict[str, Any]) -> None:
    """Drafts give the tokens of greedy search, with and without an end of sequence.

    They are those of transformers, or with bans, which take left padding for text there, of genmode without drafts.
    """
    flags: dict[str, Any] = {**bans, "do_sample": False, "max_new_tokens": 20}
    greedy = partial(genmode.generate, model) if bans else model.generate
    plain = greedy(**inputs, **flags)
    assert torch.equal(genmode.generate(model, **inputs, **flags, **drafts), plain)
    eos = sorted({int(plain[0, -12]), int(plain[-1, -5])})
    plain = greedy(**inputs, **flags, eos_token_id=eos)
    assert torch.equal(genmode.generate(model, **inputs, **flags, **drafts, eos_token_id=eos), plain)


def history(*rows: list[int], starts: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, lengths and starts of rows of their own lengths; columns behind their ends hold 99."""
    tokens = torch.full((len(rows), max(map(len, rows)) + 2), 99)
    for row, tokens_of_row in enumerate(rows):
        tokens[row, : len(tokens_of_row)] = torch.tensor(tokens_of_row)
    lengths = torch.tensor([len(row) for row in rows])
    first = torch.tensor(starts or [0] * len(rows))
    return tokens, lengths, first


def cyclic(**config: Any) -> Any:
    """A Llama that says 10 11 12 13 10 11 ... or 20 21 ... 26 20 ..., whichever circle the last token is of."""
    model = fresh("llama", **config)
    following = list(range(100))
    for circle in (range(10, 14), range(20, 27)):
        for token in circle:
            following[token] = token + 1 if token + 1 in circle else circle[0]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        table = torch.linalg.qr(torch.randn(100, 100, generator=torch.Generator().manual_seed(1))).Q
        model.model.embed_tokens.weight.copy_(table[:, :32])
        model.lm_head.weight.copy_(table[:, :32][torch.tensor(following).argsort()] * 20)
    return model


def forwards(model: Any, call: Any) -> tuple[Tensor, int]:
    """The result of a call, and how many forwards it took."""
    count = 0

    def tick(*_: object) -> None:
        nonlocal count
        count += 1

    hook = model.register_forward_pre_hook(tick)
    try:
        return call(), count
    finally:
        hook.remove()


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """The p-value of Pearson's test; cells that are expected less than 5 times are taken together."""
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]]).double()
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(wanted) - 1) / 2).double(), statistic / 2))
