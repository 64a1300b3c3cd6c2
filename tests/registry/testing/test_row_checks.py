"""Each check of processors and criteria catches a component that is wrong in that way alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing import Case, check_component, checks_of

from .private import PrivateProcessor, PrivateStop
from .row_components import (
    HOARD,
    Counter,
    Growing,
    GrowingStop,
    KitTired,
    KitTwice,
    Painted,
    Stateful,
    Unmoved,
    add,
    checking,
    ends_late,
    knows_no_padding,
    moves,
    notes_length,
    of_rows,
    processing,
    prompt_count,
    stop,
    stops_at_padding,
    unforgetting,
)
from .wrong import of_every_kind, variant

WRONG_PROCESSORS: dict[str, type[Any]] = {
    **of_every_kind(KitTired, "top_p"),
    **of_rows(KitTired, processing, lambda function: add(lambda self, history: function(history))),
    "public_contract": PrivateProcessor,
    "stage_and_order": variant(KitTired, before="top_p"),
    "scores_type": processing(lambda self, scores, history: scores.double()),
    "no_nan": processing(lambda self, scores, history: scores - scores.amin(-1, keepdim=True)),
    "leaves_a_token": processing(lambda self, scores, history: scores.masked_fill(scores > -1e9, -torch.inf)),
    "one_token_left": processing(lambda self, scores, history: scores.index_fill(1, torch.tensor([41]), -torch.inf)),
    "any_layout": processing(lambda self, scores, history: scores.view(-1).clone().view_as(scores) + 1),
    "no_gradients": processing(lambda self, scores, history: scores * torch.ones(1, requires_grad=True) * 2),
    "acts": variant(KitTired, process=lambda self, scores, history: scores),
    "rollback": Stateful,
    "reorder": Stateful,
    "population": variant(KitTired, reorder=lambda self, rows: KitTired.reorder(self, rows % 3)),
    "reset": variant(KitTired, begin=unforgetting, reset=lambda self: None),
    "no_state_between_calls": Growing,
    "under_drafts": variant(KitTired, rollback=lambda self, counts: None),
    "early_end": variant(KitTired, accept=knows_no_padding),
    "whole_and_fused": processing(
        add(lambda self, history: prompt_count(self, history)), narrow=lambda self, candidates, history: candidates,
        stage=genmode.Stage.TRUNCATION, reach=0, redo=KitTired.process,
    ),
    "found_in_plan": variant(KitTired, __init__=moves),
}  # fmt: skip

WRONG_CRITERIA: dict[str, type[Any]] = {
    **of_every_kind(KitTwice, "eos"),
    **of_rows(KitTwice, checking, stop),
    "public_contract": PrivateStop,
    "flags_type": checking(stop(lambda history: (history.lengths > 8).long())),
    "candidates_leave_no_trace": Painted,
    "acts": checking(stop(lambda history: history.lengths < 0)),
    "rollback": Counter,
    "reorder": Unmoved,
    "population": Unmoved,
    "reset": Counter,
    "no_state_between_calls": GrowingStop,
    "under_drafts": Counter,
    "early_end": checking(stops_at_padding),
    "ends_calls": checking(ends_late(KitTwice.check), begin=notes_length),
}


@pytest.fixture(autouse=True)
def _empty_hoard() -> Any:
    yield
    HOARD.clear()


@pytest.mark.parametrize(
    ("kind", "wrong", "least"), [("processors", WRONG_PROCESSORS, 15), ("criteria", WRONG_CRITERIA, 10)]
)
def test_every_check_has_a_wrong_component(kind: Any, wrong: dict[str, Any], least: int) -> None:
    assert set(wrong) == {one.name for one in checks_of(kind)}
    assert len(wrong) >= least


def caught(component: type[Any], name: str) -> None:
    report = check_component(Case(component), only=[name], raises=False)
    assert [one.status for one in report.outcomes] == ["failed"], str(report)


@pytest.mark.parametrize("name", WRONG_PROCESSORS)
def test_the_check_catches_the_processor(name: str) -> None:
    caught(WRONG_PROCESSORS[name], name)


@pytest.mark.parametrize("name", WRONG_CRITERIA)
def test_the_check_catches_the_criterion(name: str) -> None:
    caught(WRONG_CRITERIA[name], name)


@pytest.mark.parametrize("right", [KitTired, KitTwice])
def test_right_ones_pass_them_all(right: type[Any]) -> None:
    report = check_component(right)
    assert [one.check.name for one in report.outcomes if one.status == "skipped"] == []
