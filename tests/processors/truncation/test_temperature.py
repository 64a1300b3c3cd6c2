"""Temperature, fixed and following the entropy, and quadratic smoothing."""

from __future__ import annotations

import math

import pydantic
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import genmode
from genmode_processors.truncation.entropy_temperature import DynamicTemperature, Edt
from genmode_processors.truncation.smoothing import Smoothing
from genmode_processors.truncation.temperature import Temperature

from .sampling_support import HISTORY, make, many_scores

MASKED = -math.inf
ALL = [
    Temperature(temperature=0.4),
    DynamicTemperature(dynatemp_low=0.3, dynatemp_high=2.0, dynatemp_exponent=1.5),
    Edt(edt_temperature=1.5, edt_theta=0.5),
    Smoothing(smoothing_factor=0.3, smoothing_curve=1.5),
]


def run(processor: genmode.LogitsProcessor, scores: Tensor) -> Tensor:
    return processor.process(scores.clone(), HISTORY)


# numbers checkable by hand ---------------------------------------------------------------------------


def test_temperature_divides() -> None:
    scores = torch.tensor([[1.0, -2.0, MASKED]])
    assert run(Temperature(temperature=0.5), scores).tolist() == [[2.0, -4.0, MASKED]]


def test_dynamic_temperature_of_equal_scores_is_the_high_bound() -> None:
    scores = torch.tensor([[3.0, 3.0, MASKED, 3.0]])
    result = run(DynamicTemperature(dynatemp_low=0.5, dynatemp_high=2.0), scores)
    assert result.tolist() == [[1.5, 1.5, MASKED, 1.5]]


def test_dynamic_temperature_by_hand() -> None:
    # H = 1.5 bits of at most log2(3) = 1.585; T = 0.5 + 1.5 * 0.9464^2 = 1.8435
    scores = torch.tensor([[0.5, 0.25, 0.25]]).log()
    processor = DynamicTemperature(dynatemp_low=0.5, dynatemp_high=2.0, dynatemp_exponent=2.0)
    assert torch.allclose(run(processor, scores), scores / 1.84349, atol=1e-5)


def test_edt_by_hand() -> None:
    # H = 1.5 * log 2 = 1.0397 nats; T = 0.7 * 0.8^(2 / 1.0397) = 0.4557
    scores = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert torch.allclose(run(Edt(edt_temperature=0.7, edt_theta=2.0), scores), scores / 0.45571, atol=1e-4)


def test_smoothing_by_hand() -> None:
    scores = torch.tensor([[5.0, 4.0, 2.0, MASKED]])
    result = run(Smoothing(smoothing_factor=0.5), scores)
    assert result.tolist() == [[5.0, 4.5, 0.5, MASKED]]  # 5 - 0.5 d^2
    # k = 0.5, s = 0.5: 5 - 0.25 d^2 + 0.25 d^3 for d = -1, -3
    result = run(Smoothing(smoothing_factor=0.5, smoothing_curve=2.0), scores)
    assert result.tolist() == [[5.0, 4.5, -4.0, MASKED]]


def test_smoothing_of_factor_0_leaves_the_scores_alone() -> None:
    scores = make("normal", 2, 9, 0)
    assert torch.equal(run(Smoothing(), scores), scores)


def test_an_edt_without_theta_is_a_temperature() -> None:
    scores = make("normal", 2, 9, 0)
    assert torch.allclose(run(Edt(edt_temperature=0.5, edt_theta=0.0), scores), scores / 0.5)


# properties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", ALL, ids=repr)
def test_keeps_order_ties_and_masks(processor: genmode.LogitsProcessor) -> None:
    @settings(max_examples=60)
    @given(many_scores())
    def check(scores: Tensor) -> None:
        result = run(processor, scores)
        assert not result.isnan().any()
        assert (result[scores == MASKED] == MASKED).all()
        order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
        before, after = scores.gather(-1, order), result.gather(-1, order)
        assert (after[:, 1:] <= after[:, :-1]).all()
        tied = before[:, 1:] == before[:, :-1]
        assert torch.equal(after[:, 1:][tied], after[:, :-1][tied])
        alone = [run(processor, row[None]) for row in scores]
        assert torch.equal(result, torch.cat(alone))

    check()


@pytest.mark.parametrize("processor", ALL, ids=repr)
def test_rows_of_one_token_or_none(processor: genmode.LogitsProcessor) -> None:
    scores = torch.tensor([[MASKED, MASKED, MASKED], [MASKED, 2.0, MASKED]])
    result = run(processor, scores)
    assert (result[0] == MASKED).all()
    assert result[1].argmax() == 1
    assert result[1, 1].isfinite()
    assert run(processor, torch.tensor([[-1.0]])).isfinite().all()


@pytest.mark.parametrize("processor", ALL[1:3], ids=repr)
def test_more_entropy_is_hotter(processor: genmode.LogitsProcessor) -> None:
    scores = torch.tensor([[4.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    ratio = scores[:, 0] / run(processor, scores)[:, 0]
    assert ratio[0] < ratio[1]


@pytest.mark.parametrize("processor", ALL, ids=repr)
def test_bfloat16_stays_bfloat16(processor: genmode.LogitsProcessor) -> None:
    scores = make("normal", 2, 30, 1)
    result = run(processor, scores.bfloat16())
    assert result.dtype == torch.bfloat16
    assert torch.allclose(result.float(), run(processor, scores.bfloat16().float()), rtol=0.05, atol=0.1)


# parameters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (Temperature, {"temperature": 0.0}),
        (DynamicTemperature, {"dynatemp_low": 0.0}),
        (DynamicTemperature, {"dynatemp_exponent": -1.0}),
        (Edt, {"edt_base": 1.0}),
        (Smoothing, {"smoothing_factor": -0.1}),
        (Smoothing, {"smoothing_curve": 0.5}),
    ],
)
def test_parameters_out_of_range_are_refused(cls: type[genmode.LogitsProcessor], values: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(values))):
        cls(**values)


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"dynatemp_low is 2.0 and dynatemp_high is 1.0"):
        DynamicTemperature(dynatemp_low=2.0)
