"""Every scheme: processor and detector read the same key, and a row's mark is a function of its tokens."""

from __future__ import annotations

import pytest
import torch

import genmode
from genmode.watermark.detection import judge

from ..rows_support import build
from .marks_support import KEY, SCHEMES, contexts, make, past
from .schemes_support import drawn_text, statistic_of

VOCAB = 100
names = pytest.mark.parametrize("name", SCHEMES)
drawing = pytest.mark.parametrize("name", ["gumbel", "permute_and_flip"])


# processor and detector ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kgw", "unigram", "sweet", "ewd"])
def test_green_tokens_are_those_that_gain(name: str) -> None:
    mark = make(name, greenlist_ratio=0.5)
    ids = torch.tensor([[3, 4, 5], [5, 4, 9]])
    raised = mark.process(torch.zeros(2, VOCAB), past(ids, 3))
    assert set(raised.unique().tolist()) == {0.0, 2.0}
    texts = torch.cat([ids[:, -1:].repeat_interleave(VOCAB, 0), torch.arange(VOCAB).repeat(2)[:, None]], 1)
    statistic = torch.full(texts.shape, 1.0) if genmode.Trait.READS_MODEL in mark.traits else None
    said = mark.evidence(texts, statistic).values[:, 1].view(2, VOCAB)
    assert torch.equal(said == 1, raised > 0)


@names
def test_marked_text_is_found_and_other_text_is_not(name: str) -> None:
    mark = make(name)
    text = drawn_text(mark, 6, 200)
    found = judge(mark, text, statistic_of(mark, text))
    assert all(one.marked for one in found), [one.p_value for one in found]
    other = make(name, key=KEY + 1)
    lost = judge(other, text, statistic_of(other, text))
    assert sum(bool(one.marked) for one in lost) <= 1
    assert "no mark of this key" in next(one for one in lost if not one.marked).note


@pytest.mark.parametrize("name", [name for name in SCHEMES if "kgw" not in name])
def test_chance_is_called_a_mark_as_often_as_stated(name: str) -> None:
    # 1,500 texts of repetitive tokens, each under a key of its own: 1% is 15, and 33 or more has p < 3e-5
    generator = torch.Generator().manual_seed(11)
    texts = torch.randint(0, 12, (1500, 40), generator=generator)
    wrong = total = 0
    for row, text in enumerate(texts):
        mark = make(name, key=1000 + row)
        statistic = torch.rand(1, 40, generator=generator) if genmode.Trait.READS_MODEL in mark.traits else None
        (one,) = judge(mark, text[None], None if statistic is None else statistic * 2)
        wrong, total = wrong + bool(one.marked), total + one.tokens
    assert total > 1500 * 5
    assert wrong < 33


@pytest.mark.parametrize("name", ["kgw", "kgw selfhash"])
def test_chance_under_permutations(name: str) -> None:
    # 1,000 texts under 10 keys: 1% is 10, and 26 or more has p < 3e-5
    texts = torch.randint(0, VOCAB, (1000, 40), generator=torch.Generator().manual_seed(11))
    marks = [make(name, key=1000 + number) for number in range(10)]
    wrong = sum(bool(one.marked) for n, mark in enumerate(marks) for one in judge(mark, texts[n::10]))
    assert wrong < 26


# a function of the tokens ----------------------------------------------------------------------------


@names
def test_rows_of_their_own_lengths_are_marked_as_if_alone(name: str) -> None:
    mark = make(name)
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(0, 4, (length,), generator=generator).tolist() for length in (9, 7, 12, 4)]
    starts, width = [2, 0, 3, 0], 12
    tokens = torch.full((4, width + 2), -7)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    scores = torch.randn(4, VOCAB, generator=generator) * 3
    together = mark.process(scores.clone(), build(tokens, [len(ids) for ids in rows], 4, starts, None))
    for row, ids in enumerate(rows):
        alone = past(torch.tensor([ids[starts[row] :]]), 4 - starts[row])
        assert torch.allclose(make(name).process(scores[row : row + 1].clone(), alone), together[row : row + 1])


@names
def test_a_row_without_a_context_is_left_alone(name: str) -> None:
    mark = make(name)
    if name in ("unigram", "synthid"):
        return  # the one has no context, the other begins with zeros
    padded = past(torch.tensor([[9, 9, 9, 9]]), 4, torch.tensor([4]))
    scores = torch.randn(1, VOCAB)
    assert torch.equal(mark.process(scores.clone(), padded), scores)


@names
def test_masked_rows_and_tokens_stay_masked(name: str) -> None:
    scores = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    scores[0] = -torch.inf
    scores[1, 1:] = -torch.inf
    scores[2, ::2] = -torch.inf
    result = make(name).process(scores.clone(), contexts(3))
    assert not result.isnan().any()
    assert int(result[1].argmax()) == 0
    assert (result[2, ::2].exp() == 0).all()


def test_a_repeated_context_is_left_unmarked_and_counts_once() -> None:
    ids = torch.tensor([[1, 2, 5, 6, 5, 6]])  # (5, 6) was a context before
    mark = make("unbiased")
    scores = torch.randn(1, VOCAB)
    assert torch.equal(mark.process(scores.clone(), past(ids, 2)), scores)
    assert not torch.equal(mark.process(scores.clone(), past(ids[:, :4], 2)), scores)
    assert judge(mark, torch.tensor([[5, 6, 7, 5, 6, 8, 5, 6, 9]]))[0].tokens == 5  # contexts 56, 67, 75, 68, 85
