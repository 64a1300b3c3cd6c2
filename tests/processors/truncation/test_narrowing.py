"""What each processor does to candidates agrees with what it does to the vocabulary."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.sampling.candidates import Candidates, Narrowing
from genmode.sampling.selection import highest

from .sampling_support import HISTORY, SeedNoise, context, every, many_scores

KEEP = st.sampled_from([1, 1, 1, 2, 3])


def candidates(scores: Tensor, width: int, checked: bool = True) -> Candidates:
    """The best tokens of each row."""
    best, ids = highest(scores, min(width, scores.shape[-1]))
    return Candidates(best, ids, scores.shape[-1], scores, checked)


def spread(narrowed: Candidates, rows: Tensor) -> Tensor:
    """Which tokens of the vocabulary are among `rows` `[rows, k]`, bool, of the candidates."""
    spread = torch.zeros(rows.shape[0], narrowed.vocab, dtype=torch.bool)
    return spread.scatter_(-1, narrowed.ids, rows)


def compare(narrowed: Candidates, dense: Tensor) -> None:
    """Where they are certain, the candidates say what the vocabulary says."""
    alive = narrowed.alive
    doubt = torch.zeros_like(alive) if narrowed.doubt is None else narrowed.doubt
    fits = ~narrowed.misfits if narrowed.misfits is not None else alive.new_ones(len(alive))
    stays = dense > -torch.inf
    assert not (spread(narrowed, alive & ~doubt) & ~stays)[fits].any()
    assert not (stays & ~spread(narrowed, alive))[fits].any()
    unchanged = narrowed.scores == dense.gather(-1, narrowed.ids)
    assert unchanged[(alive & ~doubt) & fits[:, None]].all()


@pytest.mark.parametrize("width", [4, 1000])
@pytest.mark.parametrize("processor", [one for one in every() if one.reach is not None], ids=repr)
def test_from_the_best_of_the_vocabulary(processor: Narrowing, width: int) -> None:
    processor = copy.copy(processor)

    @settings(max_examples=60)
    @given(many_scores(), KEEP)
    def check(scores: Tensor, keep: int) -> None:
        if not hasattr(processor, "looks_at"):
            processor.min_tokens_to_keep = keep
        processor.begin(context(len(scores)))
        narrowed = processor.narrow(candidates(scores, max(width, processor.reach or 0)), HISTORY)
        assert narrowed.dense is None
        compare(narrowed, processor.process(scores.clone(), HISTORY))

    check()


@pytest.mark.parametrize("processor", every(), ids=repr)
def test_from_what_others_left(processor: Narrowing) -> None:
    processor = copy.copy(processor)

    @settings(max_examples=60)
    @given(many_scores(), st.integers(1, 40), KEEP)
    def check(scores: Tensor, width: int, keep: int) -> None:
        processor.min_tokens_to_keep = keep if not hasattr(processor, "looks_at") else 1
        left = candidates(scores, width)
        left.dense = None
        dense = torch.full_like(scores, -torch.inf).scatter_(-1, left.ids, left.scores)
        noise = SeedNoise(len(scores))
        processor.begin(context(len(scores), noise))
        narrowed = processor.narrow(left, HISTORY)
        compare(narrowed, processor.process(dense.clone(), HISTORY))
        rows = torch.arange(len(scores)).flip(0)
        assert torch.equal(processor.redo(dense[rows], rows, HISTORY), processor.process(dense, HISTORY)[rows])

    check()


@pytest.mark.parametrize("processor", every(), ids=repr)
def test_with_holes_among_the_candidates(processor: Narrowing) -> None:
    """Dropped candidates, as XTC leaves them before better ones, do not count."""

    @settings(max_examples=40)
    @given(many_scores((7, 40)), st.integers(0, 1000))
    def check(scores: Tensor, seed: int) -> None:
        left = candidates(scores, scores.shape[-1])
        left.dense = None
        hidden = torch.rand(left.scores.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        left.scores = left.scores.masked_fill(hidden, -torch.inf)
        dense = torch.full_like(scores, -torch.inf).scatter_(-1, left.ids, left.scores)
        processor.begin(context(len(scores), SeedNoise(len(scores))))
        compare(processor.narrow(left, HISTORY), processor.process(dense, HISTORY))

    check()


@pytest.mark.parametrize("processor", every(), ids=repr)
def test_without_checks_nothing_is_in_doubt(processor: Narrowing) -> None:
    """As on an accelerator: the kept tokens are those of the vocabulary, edges within rounding aside."""
    scores = torch.randn(5, 60, generator=torch.Generator().manual_seed(2)) * 3
    left = candidates(scores, 60, checked=False)
    left.dense = None
    processor.begin(context(5, SeedNoise(5)))
    narrowed = processor.narrow(left, HISTORY)
    assert narrowed.doubt is None
    assert narrowed.misfits is None
    assert torch.equal(spread(narrowed, narrowed.alive), processor.process(scores.clone(), HISTORY) > -torch.inf)


def test_few_rows_are_in_doubt() -> None:
    """On ordinary scores the candidates decide nearly always: at most 1 row in 50 for any of the family."""
    scores = torch.randn(400, 500, generator=torch.Generator().manual_seed(0)) * 3
    for processor in every():
        processor.begin(context(400, SeedNoise(400)))
        left = candidates(scores, 60)
        left.dense = None
        narrowed = processor.narrow(left, HISTORY)
        share = torch.zeros(())
        if narrowed.doubt is not None:
            share = (narrowed.shares() * narrowed.doubt).sum(-1).mean()
        if narrowed.misfits is not None:
            share = share + narrowed.misfits.double().mean()
        assert share < 0.02, processor


def test_all_take_part_in_the_fused_chain() -> None:
    assert all(isinstance(processor, Narrowing) for processor in every())
    assert not isinstance(genmode.LogitsProcessor(), Narrowing)
