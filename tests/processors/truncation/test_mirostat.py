"""Mirostat: the truncation, the feedback, and its state under beams and drafting."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
import torch
from torch import Tensor

from genmode.sampling.candidates import draw
from genmode_processors.truncation.mirostat import Mirostat

from .sampling_support import HISTORY, SeedNoise, context, make

MASKED = -math.inf
SCORES = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()  # surprise 1, 2, 3, 3 bits


def begun(rows: int, **values: Any) -> Mirostat:
    processor = Mirostat(**values)
    processor.begin(context(rows))
    return processor


def kept(processor: Mirostat, scores: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in processor.process(scores.clone(), HISTORY) > MASKED]


def step(processor: Mirostat, scores: Tensor, tokens: list[int], history: Any = HISTORY) -> list[float]:
    processor.process(scores.clone(), history)
    processor.accept(torch.tensor(tokens))
    return processor.bound.tolist()


# numbers checkable by hand ---------------------------------------------------------------------------


def test_the_bound_starts_at_twice_the_target_and_follows_the_surprise() -> None:
    processor = begun(1, mirostat_tau=1.25, mirostat_eta=0.5)
    assert kept(processor, SCORES) == [[0, 1]]  # bound 2.5
    assert step(processor, SCORES, [1]) == pytest.approx([2.5 - 0.5 * (2 - 1.25)])
    assert step(processor, SCORES, [0]) == pytest.approx([2.125 - 0.5 * (1 - 1.25)])
    assert step(processor, SCORES, [0]) == pytest.approx([2.375])


def test_the_best_token_stays_below_any_bound() -> None:
    assert kept(begun(1, mirostat_tau=0.1), SCORES) == [[0]]
    assert kept(begun(1, mirostat_tau=0.1), torch.zeros(1, 4)) == [[0, 1, 2, 3]]


def test_mode_1_fits_a_zipf_law() -> None:
    """On p_i ~ 1 / i^2 the fit is exact: s = 2, e = 1, k = sqrt(2^mu / (1 - 1 / N))."""
    scores = -2 * torch.arange(1, 1001).log()[None]
    for tau, count in ((1.0, 2), (2.0, 4), (3.0, 8)):  # sqrt(4), sqrt(16), sqrt(64), nearly
        assert kept(begun(1, mirostat_mode=1, mirostat_tau=tau), scores) == [list(range(count))]


def test_mode_1_of_exponent_1_and_0() -> None:
    # e = 0: k = 2^mu / log N; equal scores: s = 0, and k is the whole vocabulary
    scores = -torch.arange(1, 101).log()[None]
    assert len(kept(begun(1, mirostat_mode=1, mirostat_tau=2.5), scores)[0]) == round(32 / math.log(100))
    assert len(kept(begun(1, mirostat_mode=1, mirostat_tau=1.0), torch.zeros(1, 30))[0]) == 30


def test_mode_1_sees_only_tokens_that_are_not_masked() -> None:
    scores = torch.tensor([[1.0, MASKED, 0.0, MASKED, MASKED]])
    assert kept(begun(1, mirostat_mode=1, mirostat_tau=0.01), scores) == [[0]]
    assert kept(begun(1, mirostat_mode=1), torch.tensor([[MASKED, 2.0]])) == [[1]]


def test_mode_0_is_off() -> None:
    processor = begun(1, mirostat_mode=0)
    assert kept(processor, SCORES) == [[0, 1, 2, 3]]
    processor.accept(torch.tensor([3]))
    assert processor.reach is None


def test_padding_and_dropped_tokens_move_nothing() -> None:
    processor = begun(2, mirostat_tau=1.0)
    scores = torch.tensor([[0.0, MASKED, MASKED], [0.0, 0.0, MASKED]])
    assert step(processor, scores, [2, 1]) == pytest.approx([2.0, 2.0])
    assert step(processor, scores, [1, 2]) == pytest.approx([2.0, 2.0])
    assert step(processor, torch.full((2, 3), MASKED), [0, 0]) == pytest.approx([2.0, 2.0])


# state -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [1, 2])
def test_rows_have_bounds_of_their_own(mode: int) -> None:
    scores = make("normal", 3, 50, 0)
    together = begun(3, mirostat_mode=mode)
    alone = [begun(1, mirostat_mode=mode) for _ in range(3)]
    for tokens in ([4, 7, 30], [1, 1, 2], [0, 49, 12]):
        bounds = step(together, scores, tokens)
        for row, one in enumerate(alone):
            assert step(one, scores[row : row + 1], [tokens[row]]) == pytest.approx([bounds[row]])


def test_reorder_takes_bound_and_past_along() -> None:
    processor = begun(2, mirostat_tau=1.0)
    scores = torch.cat([SCORES, SCORES])
    first = step(processor, scores, [0, 3])
    second = step(processor, scores, [0, 1])
    processor.reorder(torch.tensor([1, 1, 0]))
    assert processor.bound.tolist() == [second[1], second[1], second[0]]
    processor.rollback(torch.tensor([1, 0, 1]))
    assert processor.bound.tolist() == [first[1], second[1], first[0]]


def test_reorder_between_scores_and_token() -> None:
    """Beams choose rows and tokens at once: the token's surprise is that under the row it continues."""
    processor = begun(2, mirostat_tau=1.0, mirostat_eta=1.0)
    processor.process(torch.cat([SCORES, torch.zeros(1, 4)]), HISTORY)
    processor.reorder(torch.tensor([1, 0]))
    processor.accept(torch.tensor([0, 0]))
    assert processor.bound.tolist() == pytest.approx([2 - (2 - 1), 2 - (1 - 1)])


def test_rollback_goes_back_any_number_of_tokens() -> None:
    processor = begun(1)
    bounds = [processor.bound.tolist()]
    for token in range(150):
        bounds.append(step(processor, make("normal", 1, 20, token), [token % 20]))
    processor.rollback(torch.tensor([97]))
    assert processor.bound.tolist() == bounds[53]
    assert step(processor, make("normal", 1, 20, 53), [13]) == bounds[54]


def test_a_draft_is_walked_and_partly_taken_back() -> None:
    """Rows take one, two or three tokens of a step that looked at three positions."""
    scores = [make("normal", 3, 20, seed) for seed in range(3)]
    drafted, taken = torch.tensor([[4, 5], [4, 5], [4, 5]]), [1, 2, 3]
    last = torch.tensor([7, 8, 9])
    processor = begun(3)
    for position in range(3):
        history = HISTORY if position == 0 else SimpleNamespace(level=1 + position)
        processor.process(scores[position].clone(), history)
        if position < 2:
            processor.accept(drafted[:, position])
    processor.rollback(torch.tensor([2, 1, 0]))
    processor.accept(last)
    for row in range(3):
        plain = begun(1)
        for position in range(taken[row]):
            token = int(drafted[row, position]) if position < taken[row] - 1 else int(last[row])
            expected = step(plain, scores[position][row : row + 1], [token])
        assert processor.bound[row].item() == pytest.approx(expected[0])


def test_reset_and_reuse() -> None:
    processor = begun(2, mirostat_tau=1.0)
    step(processor, torch.cat([SCORES, SCORES]), [3, 3])
    processor.reset()
    processor.begin(context(1))
    assert processor.bound.tolist() == [2.0]
    assert step(processor, SCORES, [1]) == pytest.approx([2 - 0.1 * (2 - 1)])


@pytest.mark.parametrize("mode", [1, 2])
def test_candidates_move_the_bound_as_the_vocabulary_does(mode: int) -> None:
    fused, plain = begun(4, mirostat_mode=mode, mirostat_tau=3.0), begun(4, mirostat_mode=mode, mirostat_tau=3.0)
    noise = SeedNoise(4)
    for noise.step in range(25):
        scores = make("normal", 4, 400, noise.step)
        tokens = draw([fused], scores.clone(), HISTORY, noise)
        assert torch.equal(draw([], plain.process(scores.clone(), HISTORY), HISTORY, noise), tokens)
        fused.accept(tokens)
        plain.accept(tokens)
        assert fused.bound.tolist() == pytest.approx(plain.bound.tolist(), abs=1e-4)


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize(("tau", "scale"), [(2.0, 1.5), (4.0, 0.7)])
def test_holds_the_target(mode: int, tau: float, scale: float) -> None:
    """600 tokens of a source whose entropy changes: the average surprise of 8 rows is within 5% of the target."""
    processor = begun(8, mirostat_mode=mode, mirostat_tau=tau)
    noise = SeedNoise(8)
    total = torch.zeros(8)
    for noise.step in range(600):
        scores = make("normal", 8, 500, noise.step) * (scale + 0.3 * math.sin(noise.step))
        tokens = draw([processor], scores.clone(), HISTORY, noise)
        processor.accept(tokens)
        total += -scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0] / math.log(2)
    assert abs(float(total.mean()) / 600 / tau - 1) < 0.05


@pytest.mark.parametrize("values", [{"mirostat_mode": 3}, {"mirostat_tau": 0.0}, {"mirostat_eta": -1.0}])
def test_parameters_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(values))):
        Mirostat(**values)
