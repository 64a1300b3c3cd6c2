"""Truncations against numbers checkable by hand, and against the papers' definitions written out for one row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pydantic
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import genmode
from genmode_processors.truncation.cutoffs import EpsilonCutoff, EtaCutoff
from genmode_processors.truncation.min_k import MinK
from genmode_processors.truncation.min_p import MinP, TopA
from genmode_processors.truncation.p_less import PLess, PLessNorm
from genmode_processors.truncation.tail_free import TailFree
from genmode_processors.truncation.top_h import TopH
from genmode_processors.truncation.top_k import TopK
from genmode_processors.truncation.top_n_sigma import TopNSigma
from genmode_processors.truncation.top_p import TopP
from genmode_processors.truncation.typical import TypicalP

from .sampling_support import FAMILY, HISTORY, context, every, make, many_scores

Row = list[float]
MASKED = -math.inf


def logs(*shares: float) -> Tensor:
    return torch.tensor([shares]).log()


def kept(processor: genmode.LogitsProcessor, scores: Tensor) -> list[int]:
    result = processor.process(scores.clone(), HISTORY)
    assert result.shape == scores.shape
    stays = result > MASKED
    assert torch.equal(result[stays], scores[stays])
    return stays[0].nonzero()[:, 0].tolist()


# numbers checkable by hand ---------------------------------------------------------------------------

HALVES = logs(0.125, 0.5, 0.25, 0.0625, 0.0625)


@pytest.mark.parametrize(
    ("processor", "scores", "expected"),
    [
        (TopK(top_k=2), HALVES, [1, 2]),
        (TopK(top_k=4), HALVES, [0, 1, 2, 3, 4]),  # tokens 3 and 4 are equally good
        (TopK(top_k=0), HALVES, [0, 1, 2, 3, 4]),
        (TopP(top_p=0.7), HALVES, [1, 2]),
        (TopP(top_p=0.8), HALVES, [0, 1, 2]),
        (TopP(top_p=0.0), HALVES, [1]),
        (MinP(min_p=0.3), HALVES, [1, 2]),
        (MinP(min_p=0.2), HALVES, [0, 1, 2]),
        (TopA(top_a=0.6), HALVES, [1, 2]),  # 0.6 * 0.5^2 = 0.15
        (TopA(top_a=0.4), HALVES, [0, 1, 2]),  # 0.1
        (EpsilonCutoff(epsilon_cutoff=0.1), HALVES, [0, 1, 2]),
        (EpsilonCutoff(epsilon_cutoff=0.9), HALVES, [1]),  # the best token always stays
        # H = 1.875 bits = 1.3 nats; sqrt(0.2) * exp(-1.3) = 0.122
        (EtaCutoff(eta_cutoff=0.2), HALVES, [0, 1, 2]),
        # surprise 1, 2, 3, 4, 4 bits, H = 1.875: the token of 2 bits is the most typical
        (TypicalP(typical_p=0.2), HALVES, [2]),
        (TypicalP(typical_p=0.5), HALVES, [1, 2]),
        # p * bits: 0.5, 0.5, 0.375, 0.25, 0.25; half of 1.875 is 0.9375
        (TopH(top_h=0.5), HALVES, [1]),
        (TopH(top_h=0.54), HALVES, [1, 2]),
        # mean 2, deviation sqrt(8 / 4) = 1.41
        (TopNSigma(top_n_sigma=1.0), torch.tensor([[4.0, 0.0, MASKED, 2.0, 2.0]]), [0]),
        (TopNSigma(top_n_sigma=1.5), torch.tensor([[4.0, 0.0, MASKED, 2.0, 2.0]]), [0, 3, 4]),
        # shares 0.5 0.25 0.125 0.0625 0.0625: bends 0.125 0.0625 0.0625, shares of them 0.5 0.25 0.25
        (TailFree(tfs=0.4), HALVES, [1]),
        (TailFree(tfs=0.6), HALVES, [1, 2]),
        (TailFree(tfs=0.8), HALVES, [0, 1, 2]),
        (TailFree(tfs=1.0), HALVES, [0, 1, 2, 3, 4]),
        # sum of squares 0.34375
        (PLess(), HALVES, [1]),
        (PLess(p_less=False), HALVES, [0, 1, 2, 3, 4]),
        # (5 * 0.34375 - 1) / 4 = 0.1797
        (PLessNorm(), HALVES, [1, 2]),
        # drops 1 0.5 4 0.5 over range 6, by place: 0.167 0.042 0.222 0.021
        (MinK(min_k_tau=0.0), torch.tensor([[6.0, 5.0, 4.5, 0.5, 0.0]]), [0, 1, 2]),
        (MinK(min_k_tau=24.0), torch.tensor([[6.0, 5.0, 4.5, 0.5, 0.0]]), [0, 1, 2, 3]),
    ],
    ids=lambda one: getattr(one, "__name__", repr(one)),
)
def test_by_hand(processor: genmode.LogitsProcessor, scores: Tensor, expected: list[int]) -> None:
    assert kept(processor, scores) == expected


@pytest.mark.parametrize("processor", FAMILY, ids=repr)
def test_one_token_stays(processor: genmode.LogitsProcessor) -> None:
    assert kept(processor, torch.tensor([[-2.0]])) == [0]
    assert kept(processor, torch.tensor([[MASKED, 3.0, MASKED]])) == [1]


@pytest.mark.parametrize("processor", every(), ids=repr)
def test_a_row_of_masked_tokens_stays_as_it_is(processor: genmode.LogitsProcessor) -> None:
    scores = torch.cat([torch.full((1, 7), MASKED), make("normal", 1, 7, 0)])
    processor.begin(context(2))
    result = processor.process(scores.clone(), HISTORY)
    assert torch.equal(result[0], scores[0])
    assert (result[1] > MASKED).any()


@pytest.mark.parametrize("processor", FAMILY, ids=repr)
def test_rows_do_not_see_each_other(processor: genmode.LogitsProcessor) -> None:
    @settings(max_examples=40)
    @given(many_scores((1, 5, 60)))
    def check(scores: Tensor) -> None:
        together = processor.process(scores.clone(), HISTORY)
        alone = [processor.process(row[None].clone(), HISTORY) for row in scores]
        assert torch.equal(together, torch.cat(alone))

    check()


# definitions -----------------------------------------------------------------------------------------


def shares_of(row: Row) -> Row:
    best = max(row)
    weights = [math.exp(score - best) if score > MASKED else 0.0 for score in row]
    return [weight / math.fsum(weights) for weight in weights]


def top_n_sigma(row: Row) -> Row:
    seen = [score for score in row if score > MASKED]
    mean = math.fsum(seen) / len(seen)
    sigma = math.sqrt(math.fsum((score - mean) ** 2 for score in seen) / len(seen))
    return [(score - max(seen) + 0.8 * sigma) / (1 + abs(max(seen)) + abs(mean)) for score in row]


def top_a(row: Row) -> Row:
    shares = shares_of(row)
    return [share / (0.3 * max(shares) ** 2) - 1 for share in shares]


def p_less(row: Row) -> Row:
    shares = shares_of(row)
    return [share / min(math.fsum(p * p for p in shares), max(shares)) - 1 for share in shares]


def p_less_norm(row: Row) -> Row:
    shares, size = shares_of(row), len(row)
    cutoff = (size * math.fsum(p * p for p in shares) - 1) / max(size - 1, 1)
    return [share - min(cutoff, max(shares)) for share in shares]


def tail_free(row: Row) -> Row:
    if len(row) < 3:
        return [1.0 for _ in row]
    order = sorted(range(len(row)), key=lambda i: -row[i])
    p = [shares_of(row)[i] for i in order]
    bends = [abs(a - 2 * b + c) for a, b, c in zip(p, p[1:], p[2:], strict=False)]
    if math.fsum(bends) < 1e-6:
        return [0.0 for _ in row]  # float32 cannot tell what is flat
    margins = [1.0]
    for place in range(1, len(row)):
        margins.append(0.9 - math.fsum(bends[:place]) / math.fsum(bends))
    best = {row[i]: -1.0 for i in order}
    for i, margin in zip(order, margins, strict=True):
        best[row[i]] = max(best[row[i]], margin)
    return [best[score] for score in row]


def min_k(row: Row) -> Row:
    seen = sorted((score for score in row if score > MASKED), reverse=True)
    span = seen[0] - seen[-1]
    if span == 0:
        return [1.0 for _ in row]
    drops = [(a - b) / span / i for i, (a, b) in enumerate(itertools.pairwise(seen), 1)]
    first, second = sorted([*drops, 0.0], reverse=True)[:2]
    least = 3.0 / span
    if first - second < 1e-5 or abs(least - round(least)) < 1e-4:
        return [0.0 for _ in row]
    count = min(max(drops.index(first) + 1, math.floor(least)), len(seen))
    return [1.0 if score >= seen[count - 1] else -1.0 for score in row]


@pytest.mark.parametrize(
    ("processor", "definition"),
    [
        (TopNSigma(top_n_sigma=0.8), top_n_sigma),
        (TopA(top_a=0.3), top_a),
        (PLess(), p_less),
        (PLessNorm(), p_less_norm),
        (TailFree(tfs=0.9), tail_free),
        (MinK(min_k_tau=3.0), min_k),
    ],
    ids=lambda one: getattr(one, "__name__", repr(one)),
)
def test_equals_its_definition(processor: genmode.LogitsProcessor, definition: Callable[[Row], Row]) -> None:
    """Where a token is farther from the edge than float32 can err, it is kept or dropped as defined."""

    @settings(max_examples=200)
    @given(many_scores((1, 2, 3, 4, 30)).map(lambda scores: scores.clamp(min=-1e4).masked_fill(scores < -1e38, MASKED)))
    def check(scores: Tensor) -> None:
        result = processor.process(scores.clone(), HISTORY)
        for row, stays in zip(scores.tolist(), (result > MASKED).tolist(), strict=True):
            for score, margin, stay in zip(row, definition(row), stays, strict=True):
                if score == MASKED:
                    assert not stay
                elif abs(margin) > 1e-5:
                    assert stay == (margin > 0)
        assert (result > MASKED).any(-1).all()

    check()


@pytest.mark.parametrize("name", ["top_n_sigma", "min_k"])
@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_does_not_depend_on_the_temperature(name: str, temperature: float) -> None:
    processor = TopNSigma(top_n_sigma=1.1) if name == "top_n_sigma" else MinK(min_k_tau=0.0)
    scores = make("normal", 4, 200, 3)
    hot = processor.process(scores / temperature, HISTORY)
    assert torch.equal(hot > MASKED, processor.process(scores, HISTORY) > MASKED)


# parameters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (TopK, {"top_k": -1}),
        (TopP, {"top_p": 1.1}),
        (TopP, {"top_p": -0.1}),
        (MinP, {"min_p": 2}),
        (TopA, {"top_a": -1}),
        (EpsilonCutoff, {"epsilon_cutoff": 1.0}),
        (EtaCutoff, {"eta_cutoff": -0.1}),
        (TypicalP, {"typical_p": 0.0}),
        (TopH, {"top_h": 0.0}),
        (TopNSigma, {"top_n_sigma": 0}),
        (TailFree, {"tfs": 1.5}),
        (MinK, {"min_k_tau": -1}),
    ],
)
def test_parameters_out_of_range_are_refused(cls: type[genmode.LogitsProcessor], values: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(values))):
        cls(**values)


@pytest.mark.parametrize("processor", every(), ids=repr)
def test_states_what_it_is(processor: genmode.LogitsProcessor) -> None:
    assert processor.contract_version == 1
    assert processor.paper
    assert processor.stage is genmode.Stage.TRUNCATION
    assert all(field.description for field in type(processor).Params.model_fields.values())
