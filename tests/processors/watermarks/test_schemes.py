"""Every scheme: processor and detector read the same key, and a row's mark is a function of its tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.detection import judge
from genmode_processors.watermarks import keyed_hash, reweight
from genmode_processors.watermarks.choice import Choice
from genmode_processors.watermarks.contexts import occurrences
from genmode_processors.watermarks.kgw import Kgw, best_candidates

from ..rows_support import build
from .marks_support import KEY, SCHEMES, contexts, make, past

VOCAB = 100
names = pytest.mark.parametrize("name", SCHEMES)
drawing = pytest.mark.parametrize("name", ["gumbel", "permute_and_flip"])


def drawn_text(mark: Any, rows: int, length: int, temperature: float = 1.0) -> Tensor:
    """Text of a toy model whose predictions depend on the last token: `[rows, length]`, behind a prompt of 6."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(9)) * 1.5
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, VOCAB, (rows, 6), generator=generator)
    for _ in range(length):
        scores = mark.process(table[ids[:, -1]] / temperature, past(ids, 6))
        ids = torch.cat([ids, torch.multinomial(scores.softmax(-1), 1, generator=generator)], 1)
    return ids[:, 6:]


def gist_of(mark: Any, text: Tensor) -> Tensor | None:
    """What the toy model says of each token of a text."""
    if not mark.reads_model:
        return None
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(9)) * 1.5
    gist = torch.full(text.shape, torch.nan)
    for row, tokens in enumerate(text):
        gist[row, 1:] = mark.gist(table[tokens[:-1]])
    return gist


# the hash --------------------------------------------------------------------------------------------


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


# processor and detector ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kgw", "unigram", "sweet", "ewd"])
def test_green_tokens_are_those_that_gain(name: str) -> None:
    mark = make(name, greenlist_ratio=0.5)
    ids = torch.tensor([[3, 4, 5], [5, 4, 9]])
    raised = mark.process(torch.zeros(2, VOCAB), past(ids, 3))
    assert set(raised.unique().tolist()) == {0.0, 2.0}
    texts = torch.cat([ids[:, -1:].repeat_interleave(VOCAB, 0), torch.arange(VOCAB).repeat(2)[:, None]], 1)
    gist = torch.full(texts.shape, 1.0) if mark.reads_model else None
    said = mark.evidence(texts, gist).values[:, 1].view(2, VOCAB)
    assert torch.equal(said == 1, raised > 0)


@names
def test_marked_text_is_found_and_other_text_is_not(name: str) -> None:
    mark = make(name)
    text = drawn_text(mark, 6, 200)
    found = judge(mark, text, gist_of(mark, text))
    assert all(one.marked for one in found), [one.p_value for one in found]
    other = make(name, key=KEY + 1)
    lost = judge(other, text, gist_of(other, text))
    assert sum(bool(one.marked) for one in lost) <= 1
    assert "no mark of this key" in next(one for one in lost if not one.marked).note


@pytest.mark.parametrize("name", [name for name in SCHEMES if "kgw" not in name])
def test_chance_is_called_a_mark_as_often_as_stated(name: str) -> None:
    # 1,500 texts of repetitive tokens, each under a key of its own: 1% is 15, and 33 or more has p < 3e-5
    generator = torch.Generator().manual_seed(11)
    texts = torch.randint(0, 12, (1500, 40), generator=generator)
    wrong = total = 0
    for row, text in enumerate(texts):
        mark = make(name, key=1000 + row)
        gist = torch.rand(1, 40, generator=generator) if mark.reads_model else None
        (one,) = judge(mark, text[None], None if gist is None else gist * 2)
        wrong, total = wrong + bool(one.marked), total + one.tokens
    assert total > 1500 * 5
    assert wrong < 33


@pytest.mark.parametrize("name", ["kgw", "kgw selfhash"])
def test_chance_under_permutations(name: str) -> None:
    # 1,000 texts under 10 keys: 1% is 10, and 26 or more has p < 3e-5
    texts = torch.randint(0, VOCAB, (1000, 40), generator=torch.Generator().manual_seed(11))
    marks = [make(name, key=1000 + number) for number in range(10)]
    wrong = sum(bool(one.marked) for n, mark in enumerate(marks) for one in judge(mark, texts[n::10]))
    assert wrong < 26


# a function of the tokens ----------------------------------------------------------------------------


@names
def test_rows_of_their_own_lengths_are_marked_as_if_alone(name: str) -> None:
    mark = make(name)
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(0, 4, (length,), generator=generator).tolist() for length in (9, 7, 12, 4)]
    starts, width = [2, 0, 3, 0], 12
    tokens = torch.full((4, width + 2), -7)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    scores = torch.randn(4, VOCAB, generator=generator) * 3
    together = mark.process(scores.clone(), build(tokens, [len(ids) for ids in rows], 4, starts, None))
    for row, ids in enumerate(rows):
        alone = past(torch.tensor([ids[starts[row] :]]), 4 - starts[row])
        assert torch.allclose(make(name).process(scores[row : row + 1].clone(), alone), together[row : row + 1])


@names
def test_a_row_without_a_context_is_left_alone(name: str) -> None:
    mark = make(name)
    if name in ("unigram", "synthid"):
        return  # the one has no context, the other begins with zeros
    padded = past(torch.tensor([[9, 9, 9, 9]]), 4, torch.tensor([4]))
    scores = torch.randn(1, VOCAB)
    assert torch.equal(mark.process(scores.clone(), padded), scores)


@names
def test_masked_rows_and_tokens_stay_masked(name: str) -> None:
    scores = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    scores[0] = -torch.inf
    scores[1, 1:] = -torch.inf
    scores[2, ::2] = -torch.inf
    result = make(name).process(scores.clone(), contexts(3))
    assert not result.isnan().any()
    assert int(result[1].argmax()) == 0
    assert (result[2, ::2].exp() == 0).all()


@given(st.lists(st.integers(0, 2), min_size=3, max_size=20), st.integers(1, 3))
def test_occurrences_by_definition(tokens: list[int], width: int) -> None:
    for prompt in (1, 2):
        for end in range(max(prompt, width), len(tokens) + 1):
            expected = sum(
                tokens[at - width : at] == tokens[end - width : end] for at in range(max(prompt, width), end)
            )
            assert occurrences(past(torch.tensor([tokens[:end]]), prompt), width).tolist() == [expected]


def test_a_repeated_context_is_left_unmarked_and_counts_once() -> None:
    ids = torch.tensor([[1, 2, 5, 6, 5, 6]])  # (5, 6) was a context before
    mark = make("unbiased")
    scores = torch.randn(1, VOCAB)
    assert torch.equal(mark.process(scores.clone(), past(ids, 2)), scores)
    assert not torch.equal(mark.process(scores.clone(), past(ids[:, :4], 2)), scores)
    assert judge(mark, torch.tensor([[5, 6, 7, 5, 6, 8, 5, 6, 9]]))[0].tokens == 5  # contexts 56, 67, 75, 68, 85


# draws of the token ----------------------------------------------------------------------------------


@drawing
def test_one_token_survives_with_its_score(name: str) -> None:
    scores = torch.randn(50, VOCAB)
    result = make(name).process(scores.clone(), contexts(50))
    kept = result > -torch.inf
    assert (kept.sum(1) == 1).all()
    assert torch.equal(result[kept], scores[kept])


@drawing
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 30.0])
def test_the_short_way_finds_the_winner_of_the_whole_vocabulary(name: str, spread: float) -> None:
    mark: Choice = make(name)
    scores = torch.randn(40, 5003, generator=torch.Generator().manual_seed(2)) * spread
    scores[::3, 100:5000] = -torch.inf
    keys = keyed_hash.context_keys(KEY, torch.arange(40)[:, None])
    assert torch.equal(mark.winners(scores, keys), mark.among_all(scores, keys))


@drawing
def test_the_short_way_knows_ties_and_masked_rows(name: str) -> None:
    mark: Choice = make(name)
    scores = torch.randint(0, 2, (60, 503), generator=torch.Generator().manual_seed(4)).float() * 4
    scores[0] = -torch.inf
    scores[1, 1:] = -torch.inf
    scores[2, 5:9] = torch.inf
    scores[3, 7] = torch.nan
    keys = keyed_hash.context_keys(KEY, torch.arange(60)[:, None])
    for rows in (slice(4, 60), slice(0, 3), slice(0, 60)):
        assert torch.equal(mark.winners(scores[rows], keys[rows]), mark.among_all(scores[rows], keys[rows]))
    turned = scores.T.contiguous().T
    assert torch.equal(mark.winners(turned, keys), mark.among_all(scores, keys))


def test_a_repeated_context_gets_other_numbers() -> None:
    mark = make("gumbel")
    scores = torch.zeros(1, VOCAB)
    first = mark.process(scores.clone(), past(torch.tensor([[1, 5, 6]]), 3)).argmax()
    again = mark.process(scores.clone(), past(torch.tensor([[1, 5, 6, 5, 6]]), 3)).argmax()
    assert first != again


# the reweighting -------------------------------------------------------------------------------------


def by_formula(scores: Tensor, key: int, alpha: float) -> Tensor:
    """p' of one row `[vocab]`, float64, by the formula, token after token along the order."""
    keys = torch.tensor([key])
    late = keyed_hash.bits(keys, len(scores))[0].tolist()
    down = bool(reweight.descending(keys))
    order = sorted(range(len(scores)), key=lambda token: (late[token], -token if down else token))
    shares = scores.double().softmax(-1)
    changed, start = torch.zeros_like(shares), 0.0
    for token in order:
        end = start + float(shares[token])
        changed[token] = sum(max(end - cut, 0) - max(start - cut, 0) for cut in (alpha, 1 - alpha))
        start = end
    return changed


@pytest.mark.parametrize("alpha", [0.5, 0.45, 0.1])
@pytest.mark.parametrize("vocab", [3, 256, 1000])
def test_the_reweighting_by_its_formula(vocab: int, alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reweight, "PART", 1)  # a block at a time
    scores = torch.randn(12, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    scores[3, ::2] = -torch.inf
    scores[7] = -torch.inf
    keys, every = torch.arange(12) * 977, torch.ones(12, dtype=torch.bool)
    for way in (reweight.BlockReweight(12, vocab), reweight.reweighted):
        found = way(scores.clone(), keys, alpha, every).double()
        for row in (*range(7), *range(8, 12)):
            shares = (found[row] - scores[row].double().logsumexp(-1)).exp()
            torch.testing.assert_close(shares, by_formula(scores[row], int(keys[row]), alpha), atol=1e-6, rtol=0)
        assert found[7].isneginf().all()
        assert torch.equal(way(scores.clone(), keys, alpha, ~every), scores)


# KGW's lists -----------------------------------------------------------------------------------------


def test_lists_that_are_kept_give_way_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from genmode_processors.watermarks import kgw

    monkeypatch.setattr(kgw, "KEPT_BYTES", 0)  # 16 lists
    mark = Kgw(key=7, vocab_size=VOCAB)
    generator = torch.Generator().manual_seed(0)
    for count in (3, 20, 5, 40, 1, 16):
        ids = torch.randint(0, 60, (count, 2), generator=generator)
        fresh = Kgw(key=7, vocab_size=VOCAB)
        zeros = torch.zeros(count, VOCAB)
        assert torch.equal(mark.process(zeros.clone(), past(ids, 2)), fresh.process(zeros.clone(), past(ids, 2)))


@given(st.integers(1, 90), st.integers(0, 5))
def test_the_forty_best_are_those_of_a_sort(vocab: int, kinds: int) -> None:
    scores = torch.randint(0, kinds + 1, (2, vocab), generator=torch.Generator().manual_seed(vocab)).float()
    expected = scores.sort(-1, descending=True).indices[:, :40]
    assert torch.equal(best_candidates(scores).sort(-1).values, expected.sort(-1).values)


# SynthID's detectors ---------------------------------------------------------------------------------


def test_the_bayesian_posterior_is_that_of_transformers_detector() -> None:
    import transformers
    from transformers.generation.watermarking import BayesianDetectorConfig, BayesianDetectorModel

    depth = 6
    text = torch.randint(0, VOCAB, (4, 30), generator=torch.Generator().manual_seed(2))
    detector = BayesianDetectorModel(BayesianDetectorConfig(watermarking_depth=depth, base_rate=0.4))
    likelihood = detector.likelihood_model_watermarked
    with torch.no_grad():
        likelihood.beta.copy_(torch.randn(1, 1, depth))
        likelihood.delta.copy_(torch.randn(1, 1, depth, depth) * 0.3)
        detector.prior.fill_(0.4)
    mark = make(
        "synthid", depth=depth, synthid_beta=tuple(likelihood.beta.flatten().tolist()),
        synthid_delta=tuple(map(tuple, likelihood.delta[0, 0].tolist())),
    )  # fmt: skip
    coins, _, where = mark.coins_of(text)
    with torch.no_grad():
        theirs = detector(coins.view(4, -1, depth).float(), where[:, 4:].float())[0]
    assert transformers.__version__
    assert mark.posterior(text, 0.4).tolist() == pytest.approx(theirs.tolist(), rel=1e-4)


def test_a_fitted_bayesian_detector_finds_the_mark() -> None:
    mark = make("synthid", depth=8)
    beta = mark.fit(drawn_text(mark, 20, 100))
    assert len(beta) == 8
    bayes = make("synthid", depth=8, synthid_beta=beta)
    marked = drawn_text(mark, 6, 100)
    chance = torch.randint(0, VOCAB, (300, 60), generator=torch.Generator().manual_seed(8))
    assert all(one.marked for one in judge(bayes, marked))
    assert (bayes.posterior(marked) > 0.99).all()
    assert sum(bool(one.marked) for one in judge(bayes, chance)) <= 11  # 1% is 3; p < 3e-4
    with pytest.raises(genmode.ParameterError, match="synthid_beta"):
        mark.posterior(marked)


def test_the_null_of_log_likelihood_ratios_is_that_of_fair_coins() -> None:
    mark = make("synthid", depth=3, synthid_beta=(0.0, 1.0, -1.0), synthid_delta=((0.0,) * 3, (1.0, 0.0, 0.0), (0.5, -1.0, 0.0)))  # fmt: skip
    null = mark.null()
    coins = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]).double()
    said = mark._says(coins)
    assert said.exp().mean() == pytest.approx(1.0)  # a likelihood ratio
    assert null.mean == pytest.approx(float(said.mean()), abs=1e-3)
    for value in said:
        exact = float((said >= value - 1e-9).double().mean())
        assert null.tail(mark._rounded(value[None]), None) == pytest.approx(exact)
