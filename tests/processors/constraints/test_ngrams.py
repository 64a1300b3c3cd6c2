"""No n-gram twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EncoderNoRepeatNGramLogitsProcessor, NoRepeatNGramLogitsProcessor

import genmode
from genmode_processors.constraints.ngrams import EncoderNoRepeatNgram, NoRepeatNgram

from ..rows_support import begun, cases, context, history, ragged, run, same


def spared(theirs: Any, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """What transformers gives, except for rows in which it bans every token."""
    every = theirs(ids, torch.zeros_like(scores)).isneginf().all(1, keepdim=True)
    return torch.where(every, scores, theirs(ids, scores.clone()))


def banned(result: torch.Tensor) -> list[set[int]]:
    return [set(row.isneginf().nonzero()[:, 0].tolist()) for row in result]


# numbers checkable by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "tokens", "expected"),
    [
        (2, [1, 2, 3, 1], {2}),  # 1 2 has been
        (2, [1, 2, 1, 3, 1], {2, 3}),
        (3, [1, 2, 3, 1, 2], {3}),
        (3, [1, 2, 3, 2, 2], set()),
        (1, [4, 0, 4], {0, 4}),
        (4, [1, 1, 1], set()),  # too short to have one
        (0, [1, 1, 1], set()),  # off
    ],
)
def test_a_token_that_completes_an_ngram_again_is_banned(size: int, tokens: list[int], expected: set[int]) -> None:
    processor = NoRepeatNgram(no_repeat_ngram_size=size)
    assert banned(run(processor, torch.zeros(1, 6), history([tokens]))) == [expected]


def test_the_input_has_ngrams_that_the_output_must_not_have() -> None:
    processor = EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=2)
    past = history([[9, 1], [9, 1]])
    inputs = torch.tensor([[1, 2, 1, 3], [2, 1, 4, 4]])
    assert banned(run(processor, torch.zeros(2, 6), past, encoder_input_ids=inputs)) == [{2, 3}, {4}]


# identity with transformers --------------------------------------------------------------------------


@given(cases(), st.integers(1, 5))
def test_equals_transformers(case: tuple, size: int) -> None:
    ids, scores = case
    theirs = NoRepeatNGramLogitsProcessor(size)
    expected = spared(theirs, torch.tensor(ids), scores)
    assert same(run(NoRepeatNgram.adopt(theirs), scores, history(ids)), expected)


@given(cases(), st.integers(1, 4), st.data())
def test_the_encoder_form_equals_transformers(case: tuple, size: int, data: st.DataObject) -> None:
    ids, scores = case
    copies = data.draw(st.integers(1, 2))
    length = data.draw(st.integers(1, 8))
    token = st.integers(0, min(scores.shape[1], 4) - 1)
    line = st.lists(token, min_size=length, max_size=length)
    inputs = torch.tensor(data.draw(st.lists(line, min_size=len(ids), max_size=len(ids))))
    theirs = EncoderNoRepeatNGramLogitsProcessor(size, inputs)
    past = history([row for row in ids for _ in range(copies)])
    scores = scores.repeat_interleave(copies, 0)
    expected = spared(theirs, past.tokens, scores)
    assert same(run(EncoderNoRepeatNgram.adopt(theirs), scores, past), expected)
    native = EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=size)
    assert same(run(native, scores, past, encoder_input_ids=inputs), expected)


# rows of their own lengths ---------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=4), st.integers(1, 4))
def test_each_row_is_as_if_alone(ids: list[list[int]], size: int) -> None:
    scores = torch.zeros(len(ids), 5)
    inputs = torch.tensor([[0, 1, 2, 0, 1]]).expand(len(ids), -1)
    own = NoRepeatNgram(no_repeat_ngram_size=size)
    encoder = EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=size)
    together = banned(run(own, scores, ragged(ids)))
    from_input = banned(run(encoder, scores, ragged(ids), encoder_input_ids=inputs))
    for row, tokens in enumerate(ids):
        alone = history([tokens])
        assert together[row] == banned(run(own, scores[:1], alone))[0]
        assert from_input[row] == banned(run(encoder, scores[:1], alone, encoder_input_ids=inputs[:1]))[0]


# life cycle and bad input ----------------------------------------------------------------------------


def test_rows_keep_their_input_when_reordered() -> None:
    processor = begun(
        EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=2),
        history([[1], [1]]),
        encoder_input_ids=torch.tensor([[1, 2], [1, 3]]),
    )
    processor.reorder(torch.tensor([1, 0, 1]))
    assert banned(processor.process(torch.zeros(3, 5), history([[1], [1], [1]]))) == [{3}, {2}, {3}]


@pytest.mark.parametrize(("size", "tokens"), [(1, [0, 1]), (2, [0, 0, 1, 0])])
def test_a_row_in_which_every_token_would_repeat_is_left_as_it_is(size: int, tokens: list[int]) -> None:
    scores = torch.tensor([[3.0, 2.0]] * 2)
    result = run(NoRepeatNgram(no_repeat_ngram_size=size), scores, history([tokens, [1] * len(tokens)]))
    assert result[0].tolist() == [3.0, 2.0]
    assert banned(result)[1] == {1}
    inputs = torch.tensor([tokens, [1] * len(tokens)])
    encoder = EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=size)
    assert run(encoder, scores, history([[0], [1]]), encoder_input_ids=inputs)[0].tolist() == [3.0, 2.0]


@pytest.mark.parametrize("make", [history, ragged])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_padding_is_no_text(make: Any, size: int) -> None:
    padded, alone = make([[0, 0, 0, 5, 0, 7, 0]], 7, [3]), history([[5, 0, 7, 0]], 4)
    scores, own = torch.zeros(1, 9), NoRepeatNgram(no_repeat_ngram_size=size)
    assert same(run(own, scores, padded), run(own, scores, alone))
    encoder = EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=size)
    assert same(run(encoder, scores, padded), run(encoder, scores, alone))
    inputs = torch.tensor([[0, 0, 5, 0, 7, -1, -1]])
    shorter = run(encoder, scores, alone, encoder_input_ids=inputs[:, :5])
    assert same(run(encoder, scores, alone, encoder_input_ids=inputs), shorter)


def test_ids_beyond_the_vocabulary_are_skipped() -> None:
    result = run(NoRepeatNgram(no_repeat_ngram_size=2), torch.zeros(1, 3), history([[1, 99, 1]]))
    assert result.tolist() == [[0.0, 0.0, 0.0]]


def test_process_before_begin_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="before begin"):
        EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=2).process(torch.zeros(1, 3), history([[0]]))


def test_an_input_that_fits_no_row_is_refused() -> None:
    processor = EncoderNoRepeatNgram(encoder_no_repeat_ngram_size=2)
    with pytest.raises(genmode.ParameterError, match="give one for each input or row"):
        processor.begin(context(history([[0]]), encoder_input_ids=torch.zeros(2, 3, dtype=torch.long)))
