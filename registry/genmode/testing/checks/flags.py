"""Checks of criteria alone: the flags that they return."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ...contract import Kind, Trait
from ..harness.case import Case
from ..harness.check import check, inapplicable, require
from ..harness.drive import random_scores
from .step_by_step import next_said, play, says


@check(Kind.CRITERIA)
def flags_type(case: Case) -> None:
    """It returns a tensor `[rows]`, bool, on the device of the tokens."""
    for rows in ([0, 1, 2], [0]):
        drive, answers = play(case, rows)
        given: list[Any] = list(answers)
        for said in given:
            require(isinstance(said, Tensor), f"it returns {type(said).__name__}; it has to be a tensor")
            require(said.shape == (len(rows),), f"it returns shape {tuple(said.shape)} for {len(rows)} rows")
            require(said.dtype == torch.bool, f"it returns {said.dtype}; it has to be torch.bool")
            require(said.device == drive.history.tokens.device, f"it returns flags on {said.device}")


@check(Kind.CRITERIA)
def candidates_leave_no_trace(case: Case) -> None:
    """A shallow copy that is reordered and asked of candidates, as beams do, leaves the object as it was."""
    if Trait.PROBES in case.component.traits:
        inapplicable("it asks the model about rows, and a call refuses it where a strategy looks at candidates")
    drive, _ = play(case)
    undisturbed, _ = play(case)
    looker, _ = play(case)
    looker.history = copy.copy(drive.history)
    looker.component = copy.copy(drive.component)
    looker.reorder([2, 2, 1, 0, 0])
    says(case, looker, random_scores(5, 3))
    said = next_said(case, drive)
    require(
        torch.equal(said, next_said(case, undisturbed)),
        "a copy that was reordered changed the object; reorder and check have to replace state, not write into it",
    )
