"""Penalties on tokens that have occurred."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EncoderRepetitionPenaltyLogitsProcessor, RepetitionPenaltyLogitsProcessor

import genmode
from genmode_processors.penalties.repetition import (
    EncoderRepetitionPenalty,
    FrequencyPenalty,
    PresencePenalty,
    RepetitionPenalty,
)

from ..rows_support import VOCAB, begun, cases, context, history, ragged, run, same, scores_of

FACTORS = st.sampled_from([0.5, 1.0, 1.3, 7.0])


# numbers checkable by hand ---------------------------------------------------------------------------


def test_repetition_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    scores = torch.tensor([[4.0, -3.0, 0.0, 5.0]])
    result = run(RepetitionPenalty(repetition_penalty=2.0), scores, history([[0, 1, 0]]))
    assert result.tolist() == [[2.0, -6.0, 0.0, 5.0]]


@pytest.mark.parametrize(
    ("scope", "last_n", "hit"),
    [
        (None, 0, {1, 2, 3, 4}),
        ("all", 2, {3, 4}),
        ("prompt", 0, {1, 2}),
        ("prompt", 1, {2}),
        ("output", 0, {3, 4}),
        ("output", 1, {4}),
        ("output", 9, {3, 4}),
    ],
)
def test_scope_says_where_tokens_count(scope: str | None, last_n: int, hit: set[int]) -> None:
    processor = RepetitionPenalty(repetition_penalty=2.0, penalty_scope=scope, penalty_last_n=last_n)
    past = history([[0, 1, 2, 3, 4]], prompt=3, starts=[1])
    result = run(processor, torch.full((1, 6), 8.0), past)
    assert result.tolist() == [[4.0 if token in hit else 8.0 for token in range(6)]]


def test_presence_counts_once_and_frequency_each_time() -> None:
    past = history([[3, 0, 1, 0]], prompt=1)
    scores = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert run(PresencePenalty(presence_penalty=1.5), scores, past).tolist() == [[3.5, 3.5, 5.0, 5.0]]
    assert run(FrequencyPenalty(frequency_penalty=1.5), scores, past).tolist() == [[2.0, 3.5, 5.0, 5.0]]


def test_encoder_repetition_favours_the_input() -> None:
    scores = torch.tensor([[4.0, -4.0, 4.0, -4.0]])
    processor = EncoderRepetitionPenalty(encoder_repetition_penalty=2.0)
    result = run(processor, scores, history([[2, 2]]), encoder_input_ids=torch.tensor([[0, 1]]))
    assert result.tolist() == [[8.0, -2.0, 4.0, -4.0]]


def test_without_encoder_the_prompt_is_the_input() -> None:
    processor = EncoderRepetitionPenalty(encoder_repetition_penalty=2.0)
    result = run(processor, torch.full((1, 4), 1.0), history([[0, 1, 2]], prompt=2))
    assert result.tolist() == [[2.0, 2.0, 1.0, 1.0]]


# identity with transformers --------------------------------------------------------------------------


@given(cases(), FACTORS, st.sampled_from(["none", "number", "rows"]), st.data())
def test_repetition_equals_transformers(case: tuple, factor: float, kind: str, data: st.DataObject) -> None:
    ids, scores = case
    ignore: torch.Tensor | int | None = None
    if kind == "number":
        ignore = data.draw(st.integers(0, len(ids[0])))
    elif kind == "rows":
        ignore = torch.tensor([data.draw(st.integers(0, len(ids[0]))) for _ in ids])
    try:
        theirs = RepetitionPenaltyLogitsProcessor(factor, prompt_ignore_length=ignore)
        expected = theirs(torch.tensor(ids), scores.clone())
    except ValueError:  # the oldest supported release takes no tensor
        assert kind == "rows"
        return
    assert same(run(RepetitionPenalty.adopt(theirs), scores, history(ids, prompt=1)), expected)


@given(cases(), FACTORS, st.integers(1, 2))
def test_encoder_repetition_equals_transformers(case: tuple, factor: float, copies: int) -> None:
    ids, scores = case
    inputs = torch.tensor(ids)
    scores = scores.repeat_interleave(copies, 0)
    theirs = EncoderRepetitionPenaltyLogitsProcessor(factor, inputs)
    past = history([row for row in ids for _ in range(copies)])
    repeated = EncoderRepetitionPenaltyLogitsProcessor(factor, inputs.repeat_interleave(copies, 0))
    expected = repeated(past.tokens, scores.clone())
    assert same(run(EncoderRepetitionPenalty.adopt(theirs), scores, past), expected)
    native = EncoderRepetitionPenalty(encoder_repetition_penalty=factor)
    assert same(run(native, scores, past, encoder_input_ids=inputs), expected)


# the definition, row by row --------------------------------------------------------------------------


@st.composite
def uneven_cases(draw: st.DrawFn) -> tuple[list[list[int]], int, list[int], torch.Tensor]:
    """Rows of their own lengths with a prompt, its left padding, and scores."""
    rows, prompt = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    token = st.integers(0, 4)
    ids = [draw(st.lists(token, min_size=prompt, max_size=9)) for _ in range(rows)]
    starts = [draw(st.integers(0, prompt - 1)) for _ in range(rows)]
    return ids, prompt, starts, draw(scores_of(rows, VOCAB, torch.float32))


def counted(ids: list[int], prompt: int, start: int, scope: str, last_n: int) -> Counter[int]:
    end = prompt if scope == "prompt" else len(ids)
    first = prompt if scope == "output" else start
    return Counter(ids[max(first, end - last_n if last_n else 0) : end])


@given(uneven_cases(), st.sampled_from(["all", "prompt", "output"]), st.integers(0, 4), st.booleans())
def test_scopes_hold_in_rows_of_their_own_lengths(case: tuple, scope: str, last_n: int, level: bool) -> None:
    ids, prompt, starts, scores = case
    if level:
        ids = [row[: min(map(len, ids))] for row in ids]
    past = (history if level else ragged)(ids, prompt, starts)
    keys = {"penalty_scope": scope, "penalty_last_n": last_n}
    repetition = run(RepetitionPenalty(repetition_penalty=2.0, **keys), scores, past)
    presence = run(PresencePenalty(presence_penalty=0.5, **keys), scores, past)
    frequency = run(FrequencyPenalty(frequency_penalty=0.25, **keys), scores, past)
    for row, (tokens, start) in enumerate(zip(ids, starts, strict=True)):
        count = counted(tokens, prompt, start, scope, last_n)
        for token in range(VOCAB):
            score, times = scores[row, token].item(), count[token]
            penalised = score / 2 if score >= 0 else score * 2
            assert repetition[row, token].item() == pytest.approx(penalised if times else score)
            assert presence[row, token].item() == pytest.approx(score - 0.5 * bool(times))
            assert frequency[row, token].item() == pytest.approx(score - 0.25 * times)


@given(uneven_cases(), st.integers(0, 4))
def test_an_adopted_penalty_treats_each_row_as_if_alone(case: tuple, ignore: int) -> None:
    ids, prompt, _, scores = case
    theirs = RepetitionPenaltyLogitsProcessor(1.5, prompt_ignore_length=ignore)
    together = run(RepetitionPenalty.adopt(theirs), scores, ragged(ids, prompt))
    for row, tokens in enumerate(ids):
        assert same(together[row : row + 1], theirs(torch.tensor([tokens]), scores[row : row + 1].clone()))


@pytest.mark.parametrize("ignore", [None, 3, torch.tensor([3])])
def test_what_transformers_ignores_of_a_prompt_of_embeddings(ignore: Any) -> None:
    """It has no tokens, so nothing of what is decoded is left out."""

    class Theirs:
        penalty, prompt_ignore_length = 2.0, ignore

    result = run(RepetitionPenalty.adopt(Theirs()), torch.full((1, 3), 2.0), history([[0, 1]], prompt=0))
    assert result.tolist() == [[1.0, 1.0, 2.0]]


@pytest.mark.parametrize("make", [history, ragged])
def test_padding_is_no_text(make: Any) -> None:
    padded, alone = make([[0, 0, 5, 3]], 4, [2]), history([[5, 3]], 2)
    theirs = RepetitionPenaltyLogitsProcessor(1.5)
    for processor in (
        RepetitionPenalty(repetition_penalty=2.0), RepetitionPenalty.adopt(theirs),
        EncoderRepetitionPenalty(encoder_repetition_penalty=2.0), PresencePenalty(presence_penalty=1.0, penalty_scope="all"),
    ):  # fmt: skip
        assert same(run(processor, torch.ones(1, 6), padded), run(processor, torch.ones(1, 6), alone))
    encoder, inputs = EncoderRepetitionPenalty(encoder_repetition_penalty=2.0), torch.tensor([[4, 0, -1]])
    assert run(encoder, torch.ones(1, 6), alone, encoder_input_ids=inputs).tolist() == [[2, 1, 1, 1, 2, 1]]


# life cycle ------------------------------------------------------------------------------------------


def test_rows_keep_their_input_when_reordered() -> None:
    first = history([[3], [3]])
    encoder = begun(
        EncoderRepetitionPenalty(encoder_repetition_penalty=2.0),
        first,
        encoder_input_ids=torch.tensor([[0], [1]]),
    )
    encoder.reorder(torch.tensor([1, 1, 0]))
    result = encoder.process(torch.ones(3, 4), history([[3], [3], [3]]))
    assert result.tolist() == [[1, 2, 1, 1], [1, 2, 1, 1], [2, 1, 1, 1]]


def test_rows_keep_what_they_ignore_when_reordered() -> None:
    class Theirs:
        penalty, prompt_ignore_length = 2.0, torch.tensor([0, 1])

    processor = begun(RepetitionPenalty.adopt(Theirs()), history([[0, 1], [0, 1]], prompt=1))
    processor.reorder(torch.tensor([1, 0]))
    result = processor.process(torch.full((2, 2), 2.0), history([[0, 1], [0, 1]], prompt=1))
    assert result.tolist() == [[2.0, 1.0], [1.0, 1.0]]


def test_nothing_is_carried_over_from_step_to_step() -> None:
    processor = begun(FrequencyPenalty(frequency_penalty=1.0), history([[0, 0, 1]]))
    assert processor.process(torch.zeros(1, 3), history([[0, 0, 1]])).tolist() == [[-2.0, -1.0, 0.0]]
    assert processor.process(torch.zeros(1, 3), history([[2, 0]])).tolist() == [[-1.0, 0.0, -1.0]]
    processor.reset()
    assert processor.process(torch.zeros(1, 3), history([[1]])).tolist() == [[0.0, -1.0, 0.0]]


# bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "processor",
    [
        RepetitionPenalty(repetition_penalty=2.0),
        PresencePenalty(presence_penalty=2.0),
        FrequencyPenalty(frequency_penalty=2.0),
    ],
)
def test_ids_beyond_the_vocabulary_are_skipped(processor: genmode.LogitsProcessor) -> None:
    result = run(processor, torch.full((1, 3), 4.0), history([[1, 99, 3]]))
    assert result[0, [0, 2]].tolist() == [4.0, 4.0]
    assert result[0, 1] < 4.0


@pytest.mark.parametrize("cls", [RepetitionPenalty, PresencePenalty, FrequencyPenalty])
def test_a_masked_row_stays_masked(cls: type[genmode.LogitsProcessor]) -> None:
    processor = cls(**{cls.name: 3.0})
    result = run(processor, torch.full((1, 4), -math.inf), history([[1, 1, 2]]))
    assert result.tolist() == [[-math.inf] * 4]


@pytest.mark.parametrize("cls", [RepetitionPenalty, PresencePenalty, FrequencyPenalty])
def test_an_empty_range_changes_nothing(cls: type[genmode.LogitsProcessor]) -> None:
    processor = cls(**{cls.name: 3.0}, penalty_scope="output")
    scores = torch.tensor([[1.0, 2.0]])
    assert run(processor, scores, history([[1, 1]], prompt=2)).tolist() == scores.tolist()
    assert run(processor, scores, ragged([[1, 1]], prompt=2)).tolist() == scores.tolist()


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_penalty_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="repetition_penalty"):
        RepetitionPenalty(repetition_penalty=value)
    if not math.isfinite(value):
        with pytest.raises(ValueError, match="presence_penalty"):
            PresencePenalty(presence_penalty=value)


def test_an_input_that_fits_no_row_is_refused() -> None:
    processor = EncoderRepetitionPenalty(encoder_repetition_penalty=2.0)
    with pytest.raises(genmode.ParameterError, match="2 given for 3 rows"):
        processor.begin(context(history([[0], [0], [0]]), encoder_input_ids=torch.tensor([[0], [1]])))
