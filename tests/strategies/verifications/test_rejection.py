"""Rejection and its lossless kin: what text is distributed as, by enumeration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.plugins.registry import registry
from genmode_strategies.verifications.block import Block
from genmode_strategies.verifications.coupling import Coupling
from genmode_strategies.verifications.rejection import Rejection

from ..verifications_support import LENGTH, expected, joint_law, pairs, place, rest

LOSSLESS: tuple[Any, ...] = (Coupling, Rejection, Block)


def test_which_are_lossless() -> None:
    stated = {
        info.name
        for info in registry().components("verifications")
        if genmode.Trait.KEEPS_DISTRIBUTION in registry().get("verifications", info.name).traits
    }
    assert stated == {one.name for one in LOSSLESS}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("verification", LOSSLESS)
def test_texts_are_distributed_as_without_drafts(verification: Any, count: int) -> None:
    for p, q in pairs(12):
        error = (joint_law(verification(), p, q, count) - rest(p, (), count)).abs().max()
        assert float(error) < 1e-12, (p, q)


def test_the_law_notices_a_wrong_rule() -> None:
    class Greedy(Rejection):
        def behind(self, p: Tensor, q: Tensor, draft: Tensor, counts: Tensor, taken: Tensor) -> Tensor:
            return p[:, 0]

    p, q = pairs(1)[0]
    assert float((joint_law(Greedy(), p, q) - rest(p, (), LENGTH)).abs().max()) > 0.01


def test_rejection_takes_one_token_with_the_overlap() -> None:
    for p, q in pairs(8):
        overlap = float(torch.minimum(p[0], q[0]).sum())
        assert expected(Rejection(), p, q, 1) == pytest.approx(overlap, abs=1e-12)


def test_places_of_texts() -> None:
    assert [place(text) for text in ((), (0,), (3,), (0, 0), (3, 3))] == [0, 1, 4, 5, 20]
