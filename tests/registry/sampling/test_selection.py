"""Selection without a sort agrees with torch's sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmode.sampling import selection

from .scores_support import KINDS, scores_of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", [1, 50, 4096, 5003, 8192])
@pytest.mark.parametrize("rows", [1, 3])
def test_agrees_with_torch(kind: str, vocab: int, rows: int) -> None:
    scores = scores_of(kind, rows, vocab)
    for k in (1, 2, 64, 160, 161, 2000, vocab):
        if k > vocab:
            continue
        values, ids = selection.highest(scores, k)
        assert torch.equal(values, scores.topk(k).values)
        assert torch.equal(scores.gather(-1, ids), values)
        assert all(len(set(row)) == k for row in ids.tolist())
        assert torch.equal(selection.kth_highest(scores, k), values[:, -1:])
    assert torch.equal(selection.ascending(scores), scores.sort(-1).values)
    wanted = torch.sort(scores.abs(), dim=-1, stable=True).indices
    assert torch.equal(selection.order_of(scores.abs()), wanted)
    assert selection.count_above(scores, -torch.inf) == int((scores > -torch.inf).sum(-1).max())


@pytest.mark.parametrize("kind", [*KINDS, "clustered", "half masked"])
@pytest.mark.parametrize("most", [700, 4096])
@pytest.mark.parametrize("rows", [1, 3])
def test_leading_scores_are_the_highest(kind: str, most: int, rows: int) -> None:
    scores = scores_of(kind if kind in KINDS else "normal", rows, 30_001)
    if kind == "clustered":
        scores[:, :3000] += 5
    if kind == "half masked":
        scores[0, 500:] = -torch.inf
    values, ids, ragged = selection.leading(scores, most)
    assert values.shape == ids.shape
    assert ragged or values.shape[-1] == most
    assert values.shape[-1] <= most
    for row, found, places in zip(scores, values, ids, strict=True):
        there = found > -torch.inf
        assert torch.equal(found[there], row[places[there]])
        assert len(set(places[there].tolist())) == there.sum()
        assert torch.equal(found, found.sort(descending=True).values)
        assert torch.equal(found[there], row.sort(descending=True).values[: int(there.sum())])


def test_reads_slices_where_they_lie() -> None:
    scores = scores_of("normal", 4, 10_000)[1:3, 100:9000]
    assert torch.equal(selection.highest(scores, 20)[0], scores.topk(20).values)
    assert torch.equal(selection.highest(scores, 900)[0], scores.topk(900).values)
    assert torch.equal(selection.ascending(scores), scores.sort(-1).values)


def test_nan_counts_as_highest_as_in_torch() -> None:
    scores = scores_of("normal", 1, 6000)
    scores[0, 77] = torch.nan
    for k in (5, 500):
        assert selection.highest(scores, k)[1][0, 0] == 77


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("vocab", [512, 4096, 5003])
def test_softmax_in_parts(monkeypatch: pytest.MonkeyPatch, rows: int, vocab: int) -> None:
    scores = scores_of("normal", rows, vocab)
    torch.testing.assert_close(selection.softmax(scores), scores.softmax(-1))
    monkeypatch.setattr(selection, "_parts", lambda scores: 8 if vocab % 8 == 0 else 1)
    torch.testing.assert_close(selection.softmax(scores), scores.softmax(-1))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("vocab", [4096, 50257, 513024])
@pytest.mark.parametrize("k", [1, 4, 8, 16, 17, 50, 64, 65])
def test_topk_takes_of_equals_what_torch_takes(device: str, vocab: int, k: int) -> None:
    scores = scores_of("normal", 4, vocab).bfloat16().float().to(device)  # many are equal
    for got, wanted in zip(selection.topk(scores, k), scores.topk(k), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_topk_of_sums(device: str) -> None:
    scores, plus = (
        scores_of("normal", 3, 8192).to(device),
        torch.tensor([[0.0, 5.0], [1.0, -1.0], [0.0, 0.0]]).to(device),
    )
    sums = (scores.view(3, 2, 4096) + plus[:, :, None]).view(3, 8192)
    for got, wanted in zip(selection.topk(scores, 7, plus), sums.topk(7), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "vocab"), [(1, 5003), (3, 128256), (32, 8192), (100, 5003), (2, 513024)])
def test_rows_by_many_programs(kind: str, rows: int, vocab: int) -> None:
    scores = scores_of(kind, rows, vocab).cuda()
    scores[-1, 7] = torch.inf
    for dtype in (torch.float32, torch.bfloat16):
        given = scores.to(dtype)
        exact = given.double()
        assert torch.equal(selection.first_best(given), _first(exact, 1)[:, 0])
        for k in (1, 3, 8, 50, 64):
            values, ids = selection.highest(given, k)
            assert torch.equal(values.double(), exact.topk(k).values)
            assert torch.equal(ids, _first(exact, k))
        torch.testing.assert_close(selection.softmax(given), given.float().softmax(-1), equal_nan=True)
        torch.testing.assert_close(selection.log_softmax(given), given.float().log_softmax(-1), equal_nan=True)
        torch.testing.assert_close(selection.sums(given.exp()), given.exp().sum(-1))
    scores[0, 9] = torch.nan
    assert selection.first_best(scores)[0] == 9
    assert selection.highest_values(scores)[0].isnan()
    assert selection.softmax(scores)[0].isnan().all()


def _first(scores: Tensor, k: int) -> Tensor:
    """The places of the k highest scores of each row, of equals the first ones."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[:, :k]
