"""Tokens that must come: first, last, or by a callback."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
)

import genmode
from genmode_processors.constraints.forced import ForcedBos, ForcedEos, PrefixAllowedTokens

from ..rows_support import begun, cases, context, history, ragged, run, same

NOT = -math.inf


# numbers checkable by hand ---------------------------------------------------------------------------


def test_the_first_token_is_forced_behind_one_token() -> None:
    processor = ForcedBos(forced_bos_token_id=2)
    assert run(processor, torch.ones(1, 4), history([[0]])).tolist() == [[NOT, NOT, 0, NOT]]
    assert run(processor, torch.ones(1, 4), history([[0, 2]])).tolist() == [[1, 1, 1, 1]]
    assert run(processor, torch.ones(2, 3), ragged([[0], [0, 2]])).tolist() == [[NOT, NOT, 0], [1, 1, 1]]


def test_the_last_token_is_forced_at_the_maximal_length() -> None:
    processor = ForcedEos(forced_eos_token_id=[1, 3])
    assert run(processor, torch.ones(1, 4), history([[0, 0]]), max_length=3).tolist() == [[NOT, 0, NOT, 0]]
    assert run(processor, torch.ones(1, 4), history([[0]]), max_length=3).tolist() == [[1, 1, 1, 1]]
    result = run(processor, torch.ones(2, 4), ragged([[0], [0, 0]]), max_length=3)
    assert result.tolist() == [[1, 1, 1, 1], [NOT, 0, NOT, 0]]


def test_nothing_is_forced_by_default() -> None:
    assert run(ForcedBos(), torch.ones(1, 2), history([[0]])).tolist() == [[1, 1]]
    assert run(ForcedEos(), torch.ones(1, 2), history([[0]]), max_length=2).tolist() == [[1, 1]]


def test_the_callback_says_what_may_follow() -> None:
    def allowed(source: int, tokens: torch.Tensor) -> list[int]:
        return [source, int(tokens[-1])]

    processor = PrefixAllowedTokens(prefix_allowed_tokens_fn=allowed)
    result = run(processor, torch.ones(2, 4), history([[9, 2], [9, 3]]))
    assert result.tolist() == [[1, NOT, 1, NOT], [NOT, 1, NOT, 1]]


# identity with transformers --------------------------------------------------------------------------


@given(cases(min_vocab=2), st.integers(1, 13))
def test_forcing_equals_transformers(case: tuple, length: int) -> None:
    ids, scores = case
    tokens = torch.tensor(ids)
    first = ForcedBOSTokenLogitsProcessor(1)
    assert same(run(ForcedBos.adopt(first), scores, history(ids)), first(tokens, scores.clone()))
    for ends in (1, [0, 1]):
        last = ForcedEOSTokenLogitsProcessor(length, ends)
        assert same(run(ForcedEos.adopt(last), scores, history(ids)), last(tokens, scores.clone()))


@given(cases(), st.integers(1, 3))
def test_the_callback_equals_transformers(case: tuple, beams: int) -> None:
    ids, scores = case
    past = history([row for row in ids for _ in range(beams)])
    scores = scores.repeat_interleave(beams, 0)
    vocab = scores.shape[1]
    calls: list[tuple[int, list[int]]] = []

    def allowed(source: int, tokens: torch.Tensor) -> list[int]:
        calls.append((source, tokens.tolist()))
        return sorted({source % vocab, int(tokens.sum()) % vocab})

    theirs = PrefixConstrainedLogitsProcessor(allowed, beams)
    expected = theirs(past.tokens, scores.clone())
    asked, calls[:] = list(calls), []
    result = run(PrefixAllowedTokens.adopt(theirs), scores, past)
    assert calls == asked
    masked = result.isneginf().all(1)  # 5.23 lets through what was masked before
    assert all(
        bool(scores[row, allowed(row // beams, past.tokens[row])].isneginf().all())
        for row in masked.nonzero()[:, 0].tolist()
    )
    assert same(result[~masked], expected[~masked])
    config = SimpleNamespace(num_beams=beams)
    native = PrefixAllowedTokens(prefix_allowed_tokens_fn=allowed)
    assert same(run(native, scores, past, generation_config=config), result)


def test_what_is_masked_stays_so() -> None:
    scores = torch.tensor([[1.0, NOT], [1.0, 2.0], [1.0, NOT], [1.0, NOT]])
    processor = PrefixAllowedTokens(prefix_allowed_tokens_fn=lambda source, tokens: [1])
    config = SimpleNamespace(num_beams=2)
    result = run(processor, scores, history([[0]] * 4), generation_config=config)
    assert result.tolist() == [[NOT, NOT], [NOT, 2], [NOT, NOT], [NOT, NOT]]


# life cycle ------------------------------------------------------------------------------------------


def test_a_moved_row_keeps_its_input_and_sees_its_own_tokens() -> None:
    seen: list[tuple[int, list[int]]] = []

    def allowed(source: int, tokens: torch.Tensor) -> list[int]:
        seen.append((source, tokens.tolist()))
        return [0]

    processor = begun(PrefixAllowedTokens(prefix_allowed_tokens_fn=allowed), history([[5], [6], [7]]))
    processor.reorder(torch.tensor([2, 0]))
    processor.process(torch.zeros(2, 3), ragged([[7, 8], [5]]))
    assert seen == [(2, [7, 8]), (0, [5])]


# bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", [ForcedBos(forced_bos_token_id=9), ForcedEos(forced_eos_token_id=[0, 9])])
def test_forced_ids_outside_the_vocabulary_are_refused(processor: genmode.LogitsProcessor) -> None:
    with pytest.raises(genmode.ParameterError, match=r"\[9\] outside the vocabulary of 4"):
        processor.begin(context(history([[0]]), vocab=4))


def test_a_callback_that_allows_nothing_is_refused() -> None:
    processor = PrefixAllowedTokens(prefix_allowed_tokens_fn=lambda source, tokens: [])
    with pytest.raises(genmode.ParameterError, match="allows nothing for input 0 after 2 tokens"):
        run(processor, torch.zeros(1, 3), history([[0, 1]]))


def test_an_object_without_the_known_attributes_is_left_to_transformers() -> None:
    class Changed:
        def __init__(self) -> None:
            self.function: Any = None

    assert PrefixAllowedTokens.adopt(Changed()) is None


def test_one_token_vocabularies_can_be_forced() -> None:
    assert run(ForcedBos(forced_bos_token_id=0), torch.full((1, 1), NOT), history([[0]])).tolist() == [[0.0]]
