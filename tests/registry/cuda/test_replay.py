"""Recorded functions see the arguments of each call, wherever these lie."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmode.cuda.replay import SMALL, Replays, mark_static

pytestmark = pytest.mark.gpu


def mixed(
    row: Tensor, count: Tensor, flags: Tensor, table: Tensor, scalar: Tensor, long: Tensor, none: None, factor: int
) -> tuple[Tensor, Tensor]:
    """Something that every argument has a part in."""
    total = (row * count * factor).where(flags, scalar) + table.sum(0)
    return total, total.sum() + long.sum()


def arguments(number: int, row: Tensor) -> tuple[object, ...]:
    """Small and large ones, of several dtypes, one of them with its elements apart."""
    ones = torch.ones(SMALL, device="cuda")
    table = torch.arange(6.0, device="cuda").view(3, 2).t() * number  # [2, 3]
    flags = torch.tensor([True, number % 2 == 0, False], device="cuda")
    return row, torch.tensor([number], device="cuda"), flags, table, ones[0] * number, ones * number, None, 7


def test_arguments_are_read_where_they_stay_and_copied_elsewhere() -> None:
    replays = Replays()
    places = [mark_static(torch.tensor([1.0, 2.0, 3.0], device="cuda") + where) for where in range(2)]
    for number in range(8):
        given = arguments(number, places[number == 4])
        got = tuple(one.clone() for one in replays(mixed, *given))
        for one, wanted in zip(got, mixed(*given), strict=True):  # type: ignore[arg-type]
            assert torch.equal(one, wanted)
        places[0].add_(1.0)  # what stays is written in place
    (recorded,) = replays._kept.values()
    assert recorded.graph is not None
    assert recorded.moving == {0}
    assert not any(one.given for one in recorded.arguments)


def test_only_what_was_found_elsewhere_is_copied() -> None:
    replays = Replays()
    first, second = (mark_static(torch.ones(4, device="cuda")) for _ in range(2))
    for other in (second, second, second, mark_static(torch.full((4,), 5.0, device="cuda")), second):
        assert torch.equal(replays(torch.add, first, other), first + other)
    (recorded,) = replays._kept.values()
    assert [one.given for one in recorded.arguments] == [True, False]


def test_results_may_be_arguments_again() -> None:
    replays = Replays()
    total = torch.zeros(5, dtype=torch.long, device="cuda")
    for number in range(1, 7):
        total = replays(torch.add, total, torch.full((5,), number, device="cuda"))
    assert total.tolist() == [21] * 5
