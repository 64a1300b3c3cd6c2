"""Tokens and sequences of tokens that must not occur."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import NoBadWordsLogitsProcessor, SuppressTokensAtBeginLogitsProcessor, SuppressTokensLogitsProcessor

import genmode
from genmode_processors.constraints.bans import BadWords, SuppressTokens, SuppressTokensAtBegin

from ..rows_support import cases, history, ragged, run, same


def banned(result: torch.Tensor) -> list[set[int]]:
    return [set(row.isneginf().nonzero()[:, 0].tolist()) for row in result]


def test_bad_words_lose_their_last_token() -> None:
    processor = BadWords(bad_words_ids=[[3], [0, 1], [2, 0, 2]])
    past = history([[5, 0], [2, 0], [1, 1]])
    assert banned(run(processor, torch.zeros(3, 6), past)) == [{1, 3}, {1, 2, 3}, {3}]


def test_the_end_of_sequence_is_no_bad_word() -> None:
    processor = BadWords(bad_words_ids=[[3], [4], [0, 4]])
    assert banned(run(processor, torch.zeros(1, 6), history([[0]]), eos_token_ids=[4])) == [{3, 4}]
    assert banned(run(processor, torch.zeros(1, 6), history([[1]]), eos_token_ids=[4])) == [{3}]


@given(
    cases(min_vocab=4),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6),
    st.sampled_from([None, 0, [1, 2]]),
)
def test_bad_words_equal_transformers(case: tuple, words: list[list[int]], ends: int | list[int] | None) -> None:
    ids, scores = case
    ending = [ends] if isinstance(ends, int) else ends or []
    if all(len(word) == 1 and word[0] in ending for word in words):
        return  # transformers refuses a list of which nothing is left
    theirs = NoBadWordsLogitsProcessor(words, ends)
    result = run(BadWords.adopt(theirs), scores, history(ids), eos_token_ids=[3])
    assert same(result, theirs(torch.tensor(ids), scores.clone()))


@given(cases(), st.lists(st.integers(0, 15), min_size=1, max_size=4), st.integers(0, 12))
def test_suppressed_tokens_equal_transformers(case: tuple, tokens: list[int], begin: int) -> None:
    ids, scores = case
    theirs = SuppressTokensLogitsProcessor(tokens)
    expected = theirs(torch.tensor(ids), scores.clone())
    assert same(run(SuppressTokens.adopt(theirs), scores, history(ids)), expected)
    at_begin = SuppressTokensAtBeginLogitsProcessor(tokens, begin)
    expected = at_begin(torch.tensor(ids), scores.clone())
    assert same(run(SuppressTokensAtBegin.adopt(at_begin), scores, history(ids)), expected)


@pytest.mark.parametrize(("prompt", "forced", "lengths"), [(3, None, {3}), (3, 7, {3}), (1, None, {1}), (1, 7, {2})])
def test_the_begin_is_behind_the_prompt_or_a_forced_token(prompt: int, forced: int | None, lengths: set[int]) -> None:
    config = SimpleNamespace(forced_bos_token_id=forced)
    processor = SuppressTokensAtBegin(begin_suppress_tokens=[2])
    for length in range(prompt, 5):
        past = history([[0] * length], prompt)
        hit = run(processor, torch.zeros(1, 4), past, generation_config=config)[0, 2].isneginf()
        assert bool(hit) == (length in lengths)


def test_only_rows_at_their_begin_are_touched() -> None:
    past = ragged([[0, 1], [0, 1, 2]], prompt=2)
    assert banned(run(SuppressTokensAtBegin(begin_suppress_tokens=[1, 3]), torch.zeros(2, 4), past)) == [
        {1, 3},
        set(),
    ]


def test_bad_words_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(genmode.ParameterError, match=r"bad_words_ids: tokens \[9\]"):
        run(BadWords(bad_words_ids=[[1, 9]]), torch.zeros(1, 4), history([[0]]))
    with pytest.raises(ValueError, match="bad_words_ids"):
        BadWords(bad_words_ids=[[]])


def test_banning_every_token_gives_no_nan() -> None:
    result = run(SuppressTokens(suppress_tokens=[0, 1]), torch.zeros(1, 2), history([[0]]))
    assert result.tolist() == [[-math.inf, -math.inf]]
    assert run(SuppressTokens(suppress_tokens=0), torch.zeros(1, 1), history([[0]])).tolist() == [[-math.inf]]
