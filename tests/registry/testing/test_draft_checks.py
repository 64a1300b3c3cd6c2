"""Each check of drafters and of verifications catches one that is wrong in that way alone, and passes one that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.testing import check_component, checks_of

from .wrong import variant


class KitAgain(genmode.Drafter):
    """Drafts what followed the last token where it stood before, three tokens at most."""

    contract_version = 1
    name = "kit_again"

    class Params(genmode.Params):
        kit_alpha: int = Field(3, ge=1, le=9, description="tokens of a draft")

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        history, count = session.history, min(self.params.kit_alpha, session.draft_room)
        back = int(history.lengths.min()) - 4
        if count < 1 or back < 0:
            return None
        places = history.lengths[:, None] - 4 + torch.arange(count)  # prompts repeat four tokens
        tokens = history.tokens.gather(1, places.clamp(max=history.tokens.shape[1] - 1))
        return genmode.Draft(tokens, counts=(history.lengths - places[:, 0]).clamp(max=count))


class KitUnsure(KitAgain):
    """The same, drawn from the copied token and a few others."""

    name = "kit_unsure"
    traits = frozenset({genmode.Trait.PROBABILITIES})

    def draft(self, session: genmode.Session) -> genmode.Draft | None:
        made = super().draft(session)
        if made is None:
            return None
        q = torch.full((*made.tokens.shape, session.vocab_size), 0.5 / session.vocab_size)
        q.scatter_add_(2, made.tokens[:, :, None], torch.full((*made.tokens.shape, 1), 0.5))
        return made._replace(probabilities=q)


def drafting(function: Callable[[Any, Any], Any], base: type[Any] = KitAgain) -> type[Any]:
    """A drafter whose drafts are `function(draft, session)`."""

    def draft(self: Any, session: Any) -> Any:
        made = base.draft(self, session)
        return None if made is None else function(made, session)

    return variant(base, draft=draft)


def scribbling(made: Any, session: Any) -> Any:
    session.history.tokens[:, 0] += 1
    return made


def gambling(made: Any, session: Any) -> Any:
    torch.rand(1)
    return made


def replacing(made: Any, session: Any) -> Any:
    rows = torch.arange(session.rows)
    session.history.tokens[rows, session.history.lengths - 1] = 7
    return made


class Worn(KitAgain):
    """Drafts for every call what it drafted first."""

    name = "kit_again"

    def draft(self, session: Any) -> Any:
        self.first = getattr(self, "first", None) or super().draft(session)
        return self.first


WRONG_DRAFTERS: dict[str, type[Any]] = {
    "drafts_fit": drafting(lambda made, session: made._replace(tokens=made.tokens.clamp(min=100))),
    "probabilities_fit": drafting(lambda made, session: made._replace(probabilities=None), KitUnsure),
    "session_untouched": drafting(scribbling),
    "greedy_text_unchanged": drafting(replacing),
    "seeded_text_unchanged": drafting(gambling),
    "object_serves_again": Worn,
}


@pytest.mark.parametrize("right", [KitAgain, KitUnsure])
def test_right_drafters_pass(right: Any) -> None:
    report = check_component(right)
    of_drafters = {one.check.name: one.status for one in report.outcomes}
    assert all(of_drafters[name] == "passed" for name in WRONG_DRAFTERS)


@pytest.mark.parametrize("name", WRONG_DRAFTERS)
def test_each_check_catches_its_drafter(name: str) -> None:
    (outcome,) = check_component(WRONG_DRAFTERS[name], only=[name], raises=False).outcomes
    assert outcome.status == "failed", outcome.message


class KitShare(genmode.Verification):
    """Speculative sampling that takes nine tenths of what it could."""

    contract_version = 1
    name = "kit_share"
    traits = frozenset({genmode.Trait.KEEPS_DISTRIBUTION})

    class Params(genmode.Params):
        kit_alpha: float = Field(0.9, gt=0, le=1, description="what is taken of what could be")

    def accept(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
        tokens = draft[:, :, None]
        ratio = p[:, :-1].gather(2, tokens) / q.gather(2, tokens)
        return self.params.kit_alpha * ratio[:, :, 0].clamp(max=1)

    def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
        rows = torch.arange(len(taken))
        here, there = p[rows, taken], q[rows, taken.clamp(max=q.shape[1] - 1)]
        left = here - self.params.kit_alpha * torch.minimum(here, there)
        return torch.where((taken < counts)[:, None], left, here)


def accepting(function: Callable[..., Tensor]) -> type[Any]:
    """A verification whose `accept` is `function(right, p, q, draft, counts)`."""
    return variant(KitShare, accept=lambda self, *given: function(KitShare.accept(self, *given), *given))


def spoiling(self: Any, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor) -> Tensor:
    p /= 2
    return KitShare.accept(self, 2 * p, q, draft, counts)


def picking(self: Any, session: Any, step: Any, draft: Any) -> Any:
    """Draws with torch's generator."""
    torch.rand(1)
    return genmode.Verification.verify(self, session, step, draft)


def reversing(self: Any, session: Any, step: Any, draft: Any) -> Any:
    raise AssertionError("nobody asks in greedy search")


WRONG_VERIFICATIONS: dict[str, type[Any]] = {
    "says_probabilities": variant(KitShare, accept=spoiling),
    "masked_tokens_refused": accepting(lambda right, *_: right.clamp(min=0.1)),
    "keeps_the_law": variant(KitShare, behind=lambda self, p, q, d, c, taken: p[torch.arange(len(taken)), taken]),
    "filling_ignored": accepting(lambda right, *_: right * right[:, -1:].clamp(max=0.9)),
    "rows_by_themselves": accepting(lambda right, *_: right * right.mean()),
    "seeds_count": variant(KitShare, verify=picking),
}


def test_a_right_verification_passes() -> None:
    report = check_component(KitShare)
    told = {one.check.name: one.status for one in report.outcomes}
    assert all(told[name] == "passed" for name in WRONG_VERIFICATIONS)
    assert told["verified_greedy_text_unchanged"] == "passed"
    assert check_component(variant(KitShare, verify=reversing), only=["verified_greedy_text_unchanged"]).ok


@pytest.mark.parametrize("name", WRONG_VERIFICATIONS)
def test_each_check_catches_its_verification(name: str) -> None:
    (outcome,) = check_component(WRONG_VERIFICATIONS[name], only=[name], raises=False).outcomes
    assert outcome.status == "failed", outcome.message


def test_every_check_of_its_own_has_a_wrong_component() -> None:
    of_all = {one.name for one in checks_of("criteria")} & {one.name for one in checks_of("strategies")}
    assert {one.name for one in checks_of("drafters")} - of_all == WRONG_DRAFTERS.keys()
    greedy = {"verified_greedy_text_unchanged"}  # of the loop that all share: a verification is not asked there
    assert {one.name for one in checks_of("verifications")} - of_all - greedy == WRONG_VERIFICATIONS.keys()
