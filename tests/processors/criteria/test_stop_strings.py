"""Strings that stop a row, at the token of a naive check."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import StopStringCriteria

import genmode
from genmode_processors.criteria import StopRegex, StopStrings

from ..rows_support import begun, byte_tokenizer, context, history, ragged
from .text_support import BYTES, PIECES, STOPS, TOKENS, decoded, ends_in_output, followed, outputs


@given(outputs(), STOPS)
def test_strings_stop_at_the_token_of_the_naive_check(output: tuple[Any, list[list[int]]], stops: list[str]) -> None:
    tokenizer, rows = output
    prompt = [TOKENS[id(tokenizer)][0]]
    expected = [
        next((n for n in range(1, len(row) + 1) if ends_in_output(tokenizer, prompt, row[:n], stops)), None)
        for row in rows
    ]
    assert followed(StopStrings(stop_strings=stops), tokenizer, rows) == expected


@pytest.mark.parametrize("text", ["né", "日本", "é日"])
def test_a_character_split_over_tokens_stops_with_its_last_byte(text: str) -> None:
    single = [BYTES.convert_tokens_to_ids(t) for t in byte_tokenizer().tokenize("x" + text + "x")]
    count = len(b"x" + text.encode())
    assert len(single) == count + 1
    assert followed(StopStrings(stop_strings=[text]), BYTES, [single]) == [count]
    assert followed(StopRegex(stop_regex=[text]), BYTES, [single]) == [count]
    naive = next(n for n in range(1, count + 2) if text in decoded(BYTES, single[:n]))
    assert naive == count


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES])
@given(data=st.data())
@settings(max_examples=40)
def test_strings_stop_where_transformers_does(tokenizer: Any, data: st.DataObject) -> None:
    stops = data.draw(st.lists(st.sampled_from(["stop", "op", "né", "日本", "\n"]), min_size=1, unique=True))
    row = data.draw(st.lists(st.sampled_from(TOKENS[id(tokenizer)]), min_size=1, max_size=12))
    theirs = StopStringCriteria(tokenizer, stops)
    ours = StopStrings.adopt(theirs, tokenizer)
    whole = [TOKENS[id(tokenizer)][0], *row]
    expected = next((n for n in range(1, len(row) + 1) if bool(theirs(torch.tensor([whole[: n + 1]]), None))), None)
    assert followed(ours, tokenizer, [row]) == [expected]


def test_a_string_may_begin_in_the_prompt_and_ends_in_the_output() -> None:
    s, t, o, p = (BYTES.convert_tokens_to_ids(letter) for letter in "stop")
    past = history([[s, t, o, p], [t, s, t, o]], prompt=2)
    assert begun(StopStrings(stop_strings="stop"), past, tokenizer=BYTES).check(past).tolist() == [True, False]
    assert begun(StopStrings(stop_strings="st"), past, tokenizer=BYTES).check(past).tolist() == [False, True]


@given(outputs(), STOPS, st.data())
def test_rows_of_their_own_lengths_are_as_if_alone(
    output: tuple[Any, list[list[int]]], stops: list[str], data: st.DataObject
) -> None:
    tokenizer, rows = output
    rows = [row[: data.draw(st.integers(1, len(row)))] for row in rows]
    past = ragged([[0, *row] for row in rows], prompt=1)
    together = begun(StopStrings(stop_strings=stops), past, tokenizer=tokenizer).check(past)
    for row, done in zip(rows, together.tolist(), strict=True):
        alone = history([[0, *row]], prompt=1)
        fresh = begun(StopStrings(stop_strings=stops), alone, tokenizer=tokenizer)
        assert fresh.check(alone).tolist() == [done]


def test_drafts_and_candidates_leave_nothing_behind() -> None:
    s, t, o, p, x = (BYTES.convert_tokens_to_ids(letter) for letter in "stopx")
    past = history([[x, s, t]], prompt=1, spare=4)
    criterion = begun(StopStrings(stop_strings=["stop"]), past, tokenizer=BYTES)
    assert criterion.check(past).tolist() == [False]
    past.write(torch.tensor([[o, p]]))
    assert [criterion.check(past.ahead(n)).tolist() for n in (1, 2)] == [[False], [True]]
    past.write(torch.tensor([[x, p]]))  # the draft was dropped
    assert [criterion.check(past.ahead(n)).tolist() for n in (1, 2)] == [[False], [False]]
    past.set_level(5)
    assert criterion.check(past).tolist() == [False]


def test_rows_move() -> None:
    s, t, o, p, x = (BYTES.convert_tokens_to_ids(letter) for letter in "stopx")
    past = history([[x, s, t, o], [x, x, x, x]], prompt=1, spare=4)
    criterion = begun(StopStrings(stop_strings=["stop"]), past, tokenizer=BYTES)
    criterion.check(past)
    order = torch.tensor([1, 0])
    past.select(order)
    criterion.reorder(order)
    past.write(torch.tensor([[p], [p]]))
    past.set_level(5)
    assert criterion.check(past).tolist() == [False, True]


def test_ids_without_text_are_passed_over() -> None:
    s, t = (BYTES.convert_tokens_to_ids(letter) for letter in "st")
    past = history([[s, s, 10**5, t]], prompt=1)
    assert begun(StopStrings(stop_strings=["st"]), past, tokenizer=BYTES).check(past).tolist() == [True]


def test_special_tokens_are_looked_for_as_written() -> None:
    (token,) = BYTES.encode("<|im_end|>", add_special_tokens=False)
    past = history([[0, token]], prompt=1)
    assert begun(StopStrings(stop_strings=["im_end"]), past, tokenizer=BYTES).check(past).tolist() == [True]


@pytest.mark.parametrize("cls", [StopStrings, StopRegex])
def test_text_needs_a_tokenizer_and_no_empty_string(cls: Any) -> None:
    for value in ("", ["a", ""], [3]):
        with pytest.raises(ValueError, match=cls.name):
            cls(**{cls.name: value})
    with pytest.raises(genmode.ParameterError, match="needs the tokenizer"):
        cls(**{cls.name: ["a"]}).begin(context(history([[0]])))
