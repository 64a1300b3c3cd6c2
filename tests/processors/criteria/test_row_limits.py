"""Limits of each row."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

import genmode
from genmode.testing.harness.models import fresh, prompt, tiny
from genmode_processors.criteria import RowLimits

from ..rows_support import begun, context, history
from .criteria_support import check


def test_each_row_has_its_limit() -> None:
    past = history([[0, 0, 0]] * 4, prompt=1)
    assert check(RowLimits(row_max_new_tokens=[1, 2, 3, 0]), past) == [True, True, False, True]
    assert check(RowLimits(row_max_new_tokens=torch.tensor([2, 3])), past) == [True, True, False, False]
    assert check(RowLimits(), past) == [False] * 4


def test_limits_move_with_their_rows() -> None:
    past = history([[0, 0]] * 2, prompt=1)
    criterion = begun(RowLimits(row_max_new_tokens=[1, 2]), past)
    fork = copy.copy(criterion)
    fork.reorder(torch.tensor([1, 0, 0]))
    assert fork.check(history([[0, 0]] * 3, prompt=1)).tolist() == [False, True, True]
    assert criterion.check(past).tolist() == [True, False]


def test_limits_that_fit_no_row_are_refused() -> None:
    with pytest.raises(genmode.ParameterError, match="row_max_new_tokens: 2 given for 3 rows"):
        RowLimits(row_max_new_tokens=[1, 2]).begin(context(history([[0]] * 3)))
    for value in ([], [-1]):
        with pytest.raises(ValueError, match="row_max_new_tokens"):
            RowLimits(row_max_new_tokens=value)


def test_rows_end_each_by_itself_without_an_end_of_sequence() -> None:
    call: dict[str, Any] = {**prompt("llama", 2), "max_new_tokens": 6, "do_sample": False}  # no eos_token_id, pad 0
    whole = genmode.generate(tiny("llama"), **call)[:, 9:]
    for criterion in (
        {"row_max_new_tokens": [2, 5]},
        {"stop_when": lambda past: past.lengths - 9 >= torch.tensor([2, 5])},
    ):
        for way in ({}, {"prompt_lookup_num_tokens": 3}):
            found = genmode.generate(tiny("llama"), **call, **criterion, **way)[:, 9:]
            assert found.tolist() == [[*whole[0, :2].tolist(), 0, 0, 0], whole[1, :5].tolist()]


def test_rows_that_criteria_of_transformers_end_go_on_as_there() -> None:
    call: dict[str, Any] = {**prompt("llama", 2), "max_new_tokens": 6, "do_sample": False}

    class Second(transformers.StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.tensor([input_ids.shape[1] >= 11, input_ids.shape[1] >= 13])

    criteria = transformers.StoppingCriteriaList([Second()])
    ours = genmode.generate(tiny("llama"), **call, stopping_criteria=criteria)
    assert torch.equal(ours, tiny("llama").generate(**call, stopping_criteria=criteria))


@pytest.mark.parametrize(("pad", "fill"), [(1, 1), (None, 0)])
def test_beams_that_end_without_an_end_of_sequence_hold_tokens_alone(pad: int | None, fill: int) -> None:
    model = fresh("llama")
    model.generation_config.pad_token_id = pad
    found = genmode.generate(model, **prompt("llama", 2), num_beams=2, row_max_new_tokens=[2, 5], max_new_tokens=6)
    assert found[0, 11:].tolist() == [fill] * 3
    assert int(found.min()) >= 0


def test_with_a_seed_rows_end_each_by_itself_whoever_ends_them() -> None:
    class Second(transformers.StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.tensor([input_ids.shape[1] >= 11 + 2 * row for row in range(len(input_ids))])

    criteria = transformers.StoppingCriteriaList([Second()])
    call: dict[str, Any] = {**prompt("llama", 2), "max_new_tokens": 6, "do_sample": True, "seed": [5, 6]}
    found = genmode.generate(tiny("llama"), **call, stopping_criteria=criteria)
    assert found[0, 11:].tolist() == [0, 0]
    assert found.shape[1] == 13
