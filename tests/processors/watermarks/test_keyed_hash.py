"""Numbers of a key, a context and a token: even, independent, the same however many are asked for."""

from __future__ import annotations

import math

import pytest
import torch

from genmode_processors.watermarks import keyed_hash

from .marks_support import KEY, make

VOCAB = 100


def test_numbers_of_few_tokens_are_those_of_the_whole_vocabulary() -> None:
    keys = keyed_hash.context_keys(KEY, torch.tensor([[1, 2], [2, 1], [-1, 5]]))
    assert len(set(keys.tolist())) == 3
    tokens = torch.arange(VOCAB).repeat(3)
    of_each = keys.repeat_interleave(VOCAB)
    octets, bits = keyed_hash.octets(keys, VOCAB), keyed_hash.bits(keys, VOCAB)
    assert octets.shape == bits.shape == (3, VOCAB)
    assert torch.equal(octets.flatten().long(), keyed_hash.octet_at(of_each, tokens))
    assert torch.equal(bits.flatten().long(), keyed_hash.bit_at(of_each, tokens))
    uniform = keyed_hash.uniform_at(of_each, tokens)
    assert torch.equal((uniform * 256).long(), octets.flatten().long())
    assert ((uniform > 0) & (uniform < 1)).all()


@pytest.mark.parametrize("word", [0, -1])
def test_no_number_is_zero_or_one(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_hash.counter, "words", lambda keys, step, places: torch.full_like(places, word))
    uniform = keyed_hash.uniform_at(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    assert uniform.dtype == torch.float64
    assert float(uniform if word == 0 else 1 - uniform) == 2.0**-53
    for name in ("gumbel", "permute_and_flip"):
        assert make(name).noise(uniform).isfinite().all()


def test_every_token_of_a_large_vocabulary_can_win() -> None:
    scores = torch.zeros(100, 49152)
    for name in ("gumbel", "permute_and_flip"):
        winners = torch.cat(
            [
                make(name).winners(scores, keyed_hash.context_keys(KEY, torch.arange(n, n + 100)[:, None]))
                for n in range(0, 300, 100)
            ]
        )
        assert len(winners.unique()) > 290
        odds = keyed_hash.uniform_at(keyed_hash.context_keys(KEY, torch.arange(300)[:, None]), winners)
        # the best of 49152 uniform numbers: 49152 (1 - r) is Exp(1), of mean 1 and error 1 / sqrt(300)
        assert abs(float((1 - odds).mean()) * 49152 - 1) < 4 / math.sqrt(300)


def test_octets_and_bits_are_even_and_independent_of_the_token() -> None:
    keys = keyed_hash.context_keys(KEY, torch.arange(4000)[:, None])
    counts = torch.bincount(keyed_hash.octets(keys, 64).flatten().long(), minlength=256).double()
    expected = 4000 * 64 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 340  # chi-square, 255 degrees of freedom: p < 3e-4
    bits = keyed_hash.bits(keys, 64).double() - 0.5
    products = (bits.T @ bits) / 1000  # correlations of 2016 pairs, of deviation 1 / sqrt(4000)
    products.fill_diagonal_(0)
    assert products.abs().max() < 5 / math.sqrt(4000)


def test_text_keys_and_large_integers_are_numbers() -> None:
    assert keyed_hash.number(5) == 5
    assert keyed_hash.number(2**64 + 5) == 5
    assert -(2**63) <= keyed_hash.number("a secret") < 2**63
    assert keyed_hash.number("a secret") != keyed_hash.number("another")
