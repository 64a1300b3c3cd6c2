"""Patterns that stop a row, at the token of a naive check."""

from __future__ import annotations

import copy
import re
import time
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genmode
from genmode_processors.criteria import StopRegex, stop_regex

from ..rows_support import begun, history, ragged
from .text_support import BYTES, TOKENS, first_stop, followed, outputs

PATTERNS = ["sto?p", "o+", r"\bop", r"[^\x00-\x7f]", r"\n$", "s.*p", "^st", "t|é"]


@given(outputs(), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2))
def test_patterns_stop_at_the_token_of_the_naive_check(
    output: tuple[Any, list[list[int]]], patterns: list[str]
) -> None:
    tokenizer, rows = output
    if tokenizer is not BYTES:  # their decoders drop a space that begins the output
        rows = [[TOKENS[id(tokenizer)][0], *row] for row in rows]
        patterns = [pattern for pattern in patterns if pattern not in ("^st", r"[^\x00-\x7f]")] or ["o+"]
    expected = [
        first_stop(tokenizer, row, lambda text: any(re.search(pattern, text) for pattern in patterns)) for row in rows
    ]
    assert followed(StopRegex(stop_regex=patterns), tokenizer, rows) == expected


def test_patterns_follow_rows_wherever_they_go() -> None:
    a, b, c = (BYTES.convert_tokens_to_ids(letter) for letter in "abc")
    criterion = begun(StopRegex(stop_regex="ab$"), history([[c, a], [c, b]], prompt=1), tokenizer=BYTES)
    assert criterion.check(history([[c, a], [c, b]], prompt=1)).tolist() == [False, False]
    assert criterion.check(history([[c, b, a], [c, a, b]], prompt=1)).tolist() == [False, True]  # rows changed
    assert criterion.check(ragged([[c, b, a, b], [c, a], [c, a, b]], prompt=1)).tolist() == [True, False, True]
    fork = copy.copy(criterion)
    fork.reorder(torch.tensor([1, 0]))
    assert fork.check(history([[c, a, b]], prompt=1)).tolist() == [True]
    criterion.reset()
    assert criterion.check(history([[c, b]], prompt=1)).tolist() == [False]


@pytest.mark.parametrize("pattern", ["(", "[[:alpha:]]", r"\p{L}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(pattern))} is no regular expression"):
        StopRegex(stop_regex=pattern)


def test_what_counts_too_much_is_refused() -> None:
    StopRegex(stop_regex="(a{99}){9}")
    with pytest.raises(ValueError, match="written out; at most"):
        StopRegex(stop_regex="((a{1000}){1000}){1000}")


def test_what_stands_too_deep_is_refused() -> None:
    with pytest.raises(ValueError, match="too deep within each other"):
        StopRegex(stop_regex="(" * 5000 + "a" + ")" * 5000)


def test_a_step_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_regex, "SECONDS", 0.1)
    a, b = (BYTES.convert_tokens_to_ids(letter) for letter in "ab")
    rows = [[b] * 5000, [a] * 4999 + [b]]
    criterion = begun(StopRegex(stop_regex="(a|aa)+$"), history(rows, prompt=1), tokenizer=BYTES)
    begin = time.process_time()
    with pytest.raises(genmode.DecodingError, match="row 1 takes more than") as caught:
        criterion.check(history(rows, prompt=1))
    assert time.process_time() - begin < 2
    assert (caught.value.component, caught.value.row) == ("stop_regex", 1)
