"""Checks of processors alone: the scores that they return, and where they stand in the chain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...contract import Kind, Stage, Trait
from ..harness.case import Case
from ..harness.check import check, fail, require
from ..harness.drive import PROMPT, Drive, random_scores, random_tokens
from .step_by_step import alike, play

PROCESSORS: tuple[Kind, ...] = (Kind.PROCESSORS, Kind.WATERMARKERS)


@check(*PROCESSORS)
def stage_and_order(case: Case) -> None:
    """It declares a stage, and whom it precedes and follows by name."""
    cls: Any = case.component
    require(isinstance(cls.stage, Stage), f"stage is {cls.stage!r}; it has to be one of genmode.Stage")
    for key in ("before", "after", "replaces"):
        names: Any = getattr(cls, key, ())
        plain = isinstance(names, tuple) and all(isinstance(one, str) for one in names)
        require(plain, f"{key} is {names!r}; it has to be a tuple of names, with a comma where there is one")
    unknown = sorted(str(one) for one in cls.traits if one not in set(Trait))
    require(not unknown, f"traits: {', '.join(unknown)} is none of genmode.Trait")
    require(cls.name not in {*cls.before, *cls.after}, "it precedes or follows itself")
    both = set(cls.before) & set(cls.after)
    require(not both, f"it precedes and follows {', '.join(sorted(both))}")


@check(*PROCESSORS)
def scores_type(case: Case) -> None:
    """It returns scores as it got them: a tensor `[rows, vocab]`, float32, on the same device."""
    answers: list[Any] = list(play(case)[1])
    for given, said in zip((random_scores(3, step) for step in range(5)), answers, strict=True):
        require(isinstance(said, Tensor), f"it returns {type(said).__name__}")
        require(said.shape == given.shape, f"it returns shape {tuple(said.shape)} for scores {tuple(given.shape)}")
        require(said.dtype == torch.float32, f"it returns {said.dtype}; scores are float32")
        require(said.device == given.device, f"it returns scores on {said.device}")


@check(*PROCESSORS)
def no_nan(case: Case) -> None:
    """Masked tokens, with -inf as their score, make no NaN, and no score becomes +inf."""
    for step, said in enumerate(play(case)[1]):
        require(not bool(said.isnan().any()), f"NaN in step {step}; mind inf - inf and 0 * inf")
        require(not bool((said == torch.inf).any()), f"+inf in step {step}")


@check(*PROCESSORS)
def leaves_a_token(case: Case) -> None:
    """Every row keeps at least one token that can be chosen."""
    for step, said in enumerate(play(case, steps=12)[1]):
        lost = (~said.isfinite()).all(1)
        if bool(lost.any()):
            fail(f"row {int(lost.long().argmax())} has nothing left to choose in step {step}: all scores are -inf")


@check(*PROCESSORS)
def one_token_left(case: Case) -> None:
    """Where others have masked all tokens but one, that one stays possible or another becomes so; nothing is NaN."""
    drive = Drive(case, random_tokens(3, PROMPT, 7))
    scores = torch.full((3, random_scores(1).shape[1]), -torch.inf)
    scores[:, 41] = 2.5
    said = drive.process(scores)
    require(not bool(said.isnan().any()), "NaN where one token alone can be chosen")
    require(bool(said.isfinite().any(1).all()), "the only token that could be chosen is masked, and no other is left")


@check(*PROCESSORS)
def any_layout(case: Case) -> None:
    """Scores may lie in memory in any order, as slices and transposes do."""
    drive = Drive(case, random_tokens(3, PROMPT, 7))
    plain = drive.process(random_scores(3))
    again = Drive(case, random_tokens(3, PROMPT, 7))
    turned = random_scores(3).t().contiguous().t()
    alike(plain, again.component.process(turned, again.history), "contiguous scores, then a transpose")


@check(*PROCESSORS)
def no_gradients(case: Case) -> None:
    """The scores carry no gradient, even where the caller has gradients switched on."""
    with torch.enable_grad():
        said = play(case)[1]
    require(not any(one.requires_grad for one in said), "the scores require gradients; make weights without them")
