"""The distribution of sampling with drafts, over all texts of three tokens."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from torch import Tensor

import genmode
from genmode.testing.harness.models import fresh

from .assisted_support import MTP, dflash, heads, with_heads
from .drafting_support import chi_square

SHORT, WORDS = 3, 5
"""Texts of three tokens over a vocabulary of five."""


@functools.cache
def small() -> Any:
    return fresh("llama", vocab_size=WORDS, initializer_range=0.15, pad_token_id=0)


@functools.cache
def small_near() -> Any:
    model, generator = fresh("llama", vocab_size=WORDS, initializer_range=0.15, pad_token_id=0), torch.Generator()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator.manual_seed(weight.numel())))
    return model


def five(backwards: bool) -> Any:
    """A tokenizer of <p>, <s> and three letters."""
    pieces = ["<p>", "<s>", *("cba" if backwards else "abc")]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    made.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<p>", bos_token="<s>")


SMALL_BANS: dict[str, Any] = {
    "repetition_penalty": 1.4, "no_repeat_ngram_size": 3, "bad_words_ids": [[3, 3]], "temperature": 1.2, "top_k": 4,
}  # fmt: skip
SMALL_DRAFTERS: dict[str, Callable[[], dict[str, Any]]] = {
    "assistant": lambda: {"assistant_model": small_near(), "num_assistant_tokens": 2},
    "shared_words": lambda: {
        "assistant_model": small_near(), "tokenizer": five(False), "assistant_tokenizer": five(True),
        "num_assistant_tokens": 2,
    },
    "early_exit": lambda: {"assistant_early_exit": 1, "num_assistant_tokens": 2},
    "prompt_lookup": lambda: {"prompt_lookup_num_tokens": 2},
    "suffix_lookup": lambda: {"strategy": "suffix_lookup", "suffix_lookup_num_tokens": 2},
    "mtp": lambda: {"use_mtp": True},
    "dflash": lambda: {"assistant_model": dflash(WORDS - 1), "speculation_type": "dflash"},
}  # fmt: skip


@functools.cache
def expected(model: Any) -> tuple[Tensor, Tensor]:
    """A prompt, and the probability of each text behind it, by transformers' processors."""
    start = torch.tensor([[1, 2, 3, 1, 2, 4, 1, 2]])
    texts = torch.cartesian_prod(*[torch.arange(WORDS)] * SHORT)  # [125, 3]
    whole = torch.cat([start.expand(len(texts), -1), texts], 1)
    chain = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(SMALL_BANS["repetition_penalty"]),
            transformers.NoRepeatNGramLogitsProcessor(3),
            transformers.NoBadWordsLogitsProcessor(SMALL_BANS["bad_words_ids"]),
            transformers.TemperatureLogitsWarper(SMALL_BANS["temperature"]),
            transformers.TopKLogitsWarper(SMALL_BANS["top_k"]),
        ]
    )
    with torch.no_grad():
        logits = model(whole).logits[:, start.shape[1] - 1 : -1].float()
    probabilities = torch.ones(len(texts))
    for position in range(SHORT):
        scores = chain(whole[:, : start.shape[1] + position], logits[:, position])
        probabilities *= scores.softmax(-1).gather(1, texts[:, position, None])[:, 0]
    assert math.isclose(float(probabilities.sum()), 1, abs_tol=1e-4)
    return start, probabilities


@pytest.mark.parametrize("drafter", SMALL_DRAFTERS)
@pytest.mark.parametrize(("rows", "calls"), [(1, 150), (3, 100), (8, 60), (2000, 1)])
def test_the_distribution_of_sampling(rows: int, calls: int, drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts against their probabilities under plain sampling, penalties and bans being active.

    Wrong with probability 0.001 for a random seed; the seed is fixed.
    """
    model = small()
    if drafter in ("mtp", "dflash") and not MTP:
        pytest.skip("this transformers has no such candidate generators")
    if drafter == "mtp":
        from transformers.modeling_layers import MtpModel

        monkeypatch.setattr(MtpModel, "from_pretrained", classmethod(lambda cls, main, **_: heads(WORDS)))
        model = with_heads(WORDS)
    if drafter in ("mtp", "dflash"):  # every row has a generator, and they run one after another
        rows, calls = min(rows, 200), -(-calls // 3)
    start, probabilities = expected(model)
    if rows * calls < 1000:  # too few for 125 texts: the first two tokens
        probabilities = probabilities.view(-1, WORDS).sum(1)
    length = round(math.log(len(probabilities), WORDS))
    powers = WORDS ** torch.arange(length - 1, -1, -1)
    flags: dict[str, Any] = {**SMALL_BANS, "do_sample": True, "max_new_tokens": SHORT}
    inputs = {"input_ids": start.expand(rows, -1), "attention_mask": torch.ones(rows, 8).long()}
    torch.manual_seed(2)
    counts = torch.zeros(len(probabilities), dtype=torch.long)
    for _ in range(calls):
        drawn = genmode.generate(model, **inputs, **flags, **SMALL_DRAFTERS[drafter]())
        counts += (drawn[:, 8 : 8 + length] * powers).sum(1).bincount(minlength=len(probabilities))
    assert chi_square(counts, rows * calls * probabilities) > 0.001


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("verification", ["rejection", "block"])
@pytest.mark.parametrize("drafter", ["assistant", "early_exit", "prompt_lookup", "suffix_lookup"])
def test_the_distribution_under_a_named_verification(drafter: str, verification: str, seeded: bool) -> None:
    """With random numbers of the rows' own as with torch's; wrong with probability 0.001 for a random seed."""
    rows = 4000
    start, probabilities = expected(small())
    powers = WORDS ** torch.arange(SHORT - 1, -1, -1)
    inputs = {"input_ids": start.expand(rows, -1), "attention_mask": torch.ones(rows, 8).long()}
    torch.manual_seed(100)
    drawn = genmode.generate(
        small(), **inputs, **SMALL_BANS, **SMALL_DRAFTERS[drafter](), do_sample=True, max_new_tokens=SHORT,
        assistant_confidence_threshold=0.0, verify=verification, seed=list(range(rows)) if seeded else None,
    )  # fmt: skip
    counts = (drawn[:, 8:] * powers).sum(1).bincount(minlength=len(probabilities))
    assert chi_square(counts, rows * probabilities) > 0.001
