"""The kit's driver: a model beside the rows says of each row what it says of that row's tokens alone."""

from __future__ import annotations

import torch
from torch import Tensor

import genmode
from genmode.testing import Case
from genmode.testing.harness.drive import Drive, random_tokens
from genmode.testing.harness.models import near


class KitBeside(genmode.LogitsProcessor):
    """Adds what a second model says."""

    contract_version = 1
    name = "kit_beside"

    def begin(self, context: genmode.Context) -> None:
        self.beside = context.side_model(model=near("llama"))

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return scores + self.beside.logits()


def said(drive: Drive) -> Tensor:
    return drive.process(torch.zeros(drive.context.rows, drive.context.vocab_size))


def expected(drive: Drive) -> Tensor:
    """The second model's logits behind each row, run alone and without a cache."""
    lengths: list[int] = drive.history.lengths.tolist()
    with torch.no_grad():
        rows = [
            near("llama")(row[None, :end]).logits[0, -1] for row, end in zip(drive.history.tokens, lengths, strict=True)
        ]
    return torch.stack(rows)


def test_a_model_beside_the_rows_follows_them() -> None:
    drive = Drive(Case(KitBeside), random_tokens(3, 6, 7))
    assert torch.allclose(said(drive), expected(drive), atol=1e-4)
    for step in range(3):
        drive.take(random_tokens(3, 1, step)[:, 0])
    assert torch.allclose(said(drive), expected(drive), atol=1e-4)
    drive.reorder([2, 0, 0])
    assert torch.allclose(said(drive), expected(drive), atol=1e-4)
    drive.rollback([0, 2, 1])
    assert drive.history.lengths.tolist() == [9, 7, 8]
    assert torch.allclose(said(drive), expected(drive), atol=1e-4)
    assert not said(drive).requires_grad
