"""Exclude top choices: what is dropped, which tokens are exempt, and the coin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
import torch
from torch import Tensor

from genmode_processors.truncation.xtc import Xtc

from .sampling_support import HISTORY, SeedNoise, context

MASKED = -torch.inf
SCORES = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]]).log()


def kept(processor: Xtc, scores: Tensor = SCORES, **attributes: Any) -> list[list[int]]:
    processor.begin(context(len(scores), **attributes))
    return [row.nonzero()[:, 0].tolist() for row in processor.process(scores.clone(), HISTORY) > MASKED]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.12, [2, 3, 4]), (0.2, [1, 2, 3, 4]), (0.35, [0, 1, 2, 3, 4]), (0.45, [0, 1, 2, 3, 4]), (0.01, [4])],
)
def test_all_but_the_least_of_the_probable_go(threshold: float, expected: list[int]) -> None:
    assert kept(Xtc(xtc_probability=1.0, xtc_threshold=threshold)) == [expected]


def test_never_and_always() -> None:
    assert kept(Xtc(xtc_probability=0.0)) == [[0, 1, 2, 3, 4]]
    assert kept(Xtc(xtc_probability=1.0, xtc_threshold=0.12), SCORES.repeat(3, 1)) == [[2, 3, 4]] * 3


def test_the_least_probable_ones_that_tie_all_stay() -> None:
    scores = torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log()
    assert kept(Xtc(xtc_probability=1.0, xtc_threshold=0.15), scores) == [[1, 2, 3]]


def test_end_of_sequence_and_newline_are_exempt() -> None:
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: [77, 1] if text == "\n" else [])
    processor = Xtc(xtc_probability=1.0, xtc_threshold=0.12)
    assert kept(processor, eos_token_ids=[0]) == [[0, 2, 3, 4]]
    assert kept(processor, tokenizer=tokenizer) == [[1, 2, 3, 4]]
    assert kept(processor, eos_token_ids=[0, 9999], tokenizer=tokenizer, vocab_size=5) == [[0, 1, 2, 3, 4]]


def test_masked_tokens_are_not_probable() -> None:
    scores = torch.tensor([[3.0, MASKED, 2.9, MASKED]])
    assert kept(Xtc(xtc_probability=1.0), scores) == [[2]]


def test_one_coin_for_each_row_from_the_session() -> None:
    numbers = torch.tensor([0.1, 0.6, 0.49, 0.5])
    processor = Xtc(xtc_probability=0.5, xtc_threshold=0.12)
    rows = kept(processor, SCORES.repeat(4, 1), uniform=lambda: numbers)
    assert rows == [[2, 3, 4], [0, 1, 2, 3, 4], [2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_row_done_again_keeps_its_coin() -> None:
    processor = Xtc(xtc_probability=0.5, xtc_threshold=0.12)
    scores = SCORES.repeat(20, 1)
    processor.begin(context(20))
    result = processor.process(scores.clone(), HISTORY)
    rows = torch.tensor([3, 17, 4])
    assert torch.equal(processor.redo(scores[rows], rows, HISTORY), result[rows])


@pytest.mark.parametrize("source", ["generator", "seed"])
def test_the_coin_is_fair(source: str) -> None:
    """20,000 rows: 4 standard deviations, which a fair coin exceeds once in 16,000 seeds."""
    torch.manual_seed(0)
    rows = 20_000
    noise = SeedNoise(rows) if source == "seed" else None
    for probability in (0.2, 0.5):
        processor = Xtc(xtc_probability=probability, xtc_threshold=0.12)
        processor.begin(context(rows, noise))
        dropped = (processor.process(SCORES.repeat(rows, 1), HISTORY)[:, 0] == MASKED).sum()
        deviation = (rows * probability * (1 - probability)) ** 0.5
        assert abs(float(dropped) - rows * probability) < 4 * deviation


def test_reset_forgets_the_session() -> None:
    processor = Xtc(xtc_probability=1.0, xtc_threshold=0.12)
    assert kept(processor, eos_token_ids=[0]) == [[0, 2, 3, 4]]
    processor.reset()
    assert kept(processor) == [[2, 3, 4]]


@pytest.mark.parametrize("values", [{"xtc_probability": 1.1}, {"xtc_threshold": 0.6}, {"xtc_threshold": 0.0}])
def test_parameters_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(values))):
        Xtc(**values)
