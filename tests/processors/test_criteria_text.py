"""Criteria that look at the decoded text."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, StopStringCriteria

import genmode
from genmode_processors.automaton import KEPT, phrase_table
from genmode_processors.criteria import StopRegex, StopStrings
from genmode_processors.token_text import token_bytes

from .rows_support import begun, byte_tokenizer, fallback_tokenizer, history, ragged, session

BYTES = byte_tokenizer(["stop", "sto", "opera", "to", "né", "日本", "\n\n"], special=["</s>", "<|im_end|>"])
PIECES = fallback_tokenizer(["s", "t", "o", "p", "st", "op", "stop", "▁stop", "▁", "opera", "n", "日", "\n"])


def word_pieces() -> PreTrainedTokenizerFast:
    words = ["[UNK]", "s", "##t", "##to", "##p", "op", "stop", "##op", "n"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


WORDS = word_pieces()
TOKENS = {
    id(BYTES): BYTES.encode(
        "stop sto st s t o p op to né 日本日\n\n\n x</s><|im_end|>opera é", add_special_tokens=False
    ),
    id(PIECES): PIECES.encode("stop sto st s t o p op né 日本日\n x opera", add_special_tokens=False),
    id(WORDS): list(range(1, 9)),
}
STOPS = st.lists(
    st.sampled_from(["stop", "op", "s t", "né", "日", "本", "\n\n", "p ", "<|im_end|>", "t", "tops", "é日"]),
    min_size=1, max_size=3, unique=True,
)  # fmt: skip


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Any, list[list[int]]]:
    """A tokenizer and the tokens of a few rows, behind a prompt of one token."""
    tokenizer = draw(st.sampled_from([BYTES, PIECES, WORDS]))
    token = st.sampled_from(TOKENS[id(tokenizer)])
    length = draw(st.integers(1, 12))
    row = st.lists(token, min_size=length, max_size=length)
    return tokenizer, draw(st.lists(row, min_size=1, max_size=3))


def ends_in_output(tokenizer: Any, prompt: list[int], row: list[int], stops: list[str]) -> bool:
    """Whether a string ends in what the last token adds to the text of the prompt and the row."""
    before, text = (decoded(tokenizer, [*prompt, *some]) for some in (row[:-1], row))
    return any(
        text.startswith(stop, at) and at + len(stop) > len(before.rstrip("\ufffd"))
        for stop in stops
        for at in range(len(text))
    )


def first_stop(tokenizer: Any, row: list[int], contains: Any) -> int | None:
    """The naive check: after how many tokens the decoded output first has what is looked for."""
    return next((n for n in range(1, len(row) + 1) if contains(decoded(tokenizer, row[:n]))), None)


def decoded(tokenizer: Any, row: list[int]) -> str:
    return tokenizer.decode(row, clean_up_tokenization_spaces=False)


def followed(criterion: Any, tokenizer: Any, rows: list[list[int]]) -> list[int | None]:
    """After how many tokens the criterion first stops each row, decoding all rows together."""
    prompt = [TOKENS[id(tokenizer)][0]]
    past = history([prompt] * len(rows), prompt=1, spare=len(rows[0]))
    begun(criterion, past, tokenizer=tokenizer)
    found: list[int | None] = [None] * len(rows)
    for length in range(1, len(rows[0]) + 1):
        past.write(torch.tensor([[row[length - 1]] for row in rows]))
        past.level(length + 1)
        for row, done in enumerate(criterion.check(past).tolist()):
            if done and found[row] is None:
                found[row] = length
    return found


# what each token adds to the text --------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES, WORDS])
def test_texts_of_tokens_add_up(tokenizer: Any) -> None:
    texts = token_bytes(tokenizer)
    ids = TOKENS[id(tokenizer)]
    whole = b"".join(texts[token] for token in ids).decode(errors="replace")
    assert whole.lstrip() == decoded(tokenizer, ids).lstrip()
    assert len(texts) == len(tokenizer)
    assert token_bytes(tokenizer) is texts


def test_tables_are_kept_for_the_last_few_phrases() -> None:
    first = phrase_table(["a"], BYTES)
    assert phrase_table(["a"], BYTES) is first
    for number in range(KEPT):
        phrase_table([f"other {number}"], BYTES)
    assert phrase_table(["a"], BYTES) is not first


# strings ---------------------------------------------------------------------------------------------


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
    past.level(5)
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
    past.level(5)
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
        cls(**{cls.name: ["a"]}).begin(session(history([[0]])))


# patterns --------------------------------------------------------------------------------------------

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


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        StopRegex(stop_regex="(")
