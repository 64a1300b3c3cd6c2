"""How long a row's output is as text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import genmode
from genmode_processors.text.text_length import TextLength

from ..rows_support import byte_tokenizer, context, history, ragged, run

NOT = -math.inf
TOKENIZER = byte_tokenizer(["hello", " world", "é", "日本", ". ", '."', "a. b", "...", "。"], special=["</s>"])
END = TOKENIZER.eos_token_id
VOCAB = len(TOKENIZER)


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def after(texts: list[str], **keys: Any) -> torch.Tensor:
    """Scores behind a prompt of one token and these outputs."""
    rows = [[0, *ids(text)] for text in texts]
    processor = TextLength(**keys)
    return run(processor, torch.zeros(len(rows), VOCAB), ragged(rows, 1), tokenizer=TOKENIZER, eos_token_ids=[END])


def allowed(row: torch.Tensor) -> set[str]:
    return {TOKENIZER.decode([token]) for token in (~row.isneginf()).nonzero()[:, 0].tolist()}


# numbers checkable by hand ---------------------------------------------------------------------------


def test_the_end_waits_for_the_fewest_characters() -> None:
    result = after(["hell", "hello", "日本éa", "日本éab"], min_characters=5)
    assert result[:, END].tolist() == [NOT, 0, NOT, 0]
    assert not result[:, :END].any()


def test_no_token_exceeds_the_most_characters() -> None:
    result = after(["", "hell", "hello", "日"], max_characters=5)
    assert "hello" in allowed(result[0])
    assert " world" not in allowed(result[0])
    assert max(map(len, allowed(result[1]) - {"</s>"})) == 1
    assert allowed(result[2]) == {"</s>"}
    assert {"hell", "日本"} < allowed(result[3])
    assert "hello" not in allowed(result[3])


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("hello", 0),
        ("hello.", 1),
        ("hello. hello. ", 2),
        ('hello."', 1),
        ("a. b", 1),  # inside one token
        ("hello...", 1),
        ("hello?!", 1),  # signs that follow an end belong to it
        ("hello. ?", 1),
        ("日本。日本。", 2),
        ("", 0),
    ],
)
def test_sentences_are_counted(text: str, sentences: int) -> None:
    for limit in (1, 2, 3):
        forced = after([text], max_sentences=limit)[0]
        assert (allowed(forced) == {"</s>"}) == (sentences >= limit)
        early = after([text], min_sentences=limit)[0]
        assert bool(early[END].isneginf()) == (sentences < limit)


def test_the_maximum_wins_over_the_minimum_of_the_other_kind() -> None:
    assert allowed(after(["hello"], max_characters=5, min_sentences=3)[0]) == {"</s>"}


# properties ------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 12), st.integers(0, 12), st.randoms())
def test_decoded_texts_keep_within_the_bounds(least: int, more: int, random: Any) -> None:
    processor = TextLength(min_characters=least, max_characters=least + more)
    row = [0]
    generator = torch.Generator().manual_seed(random.randrange(10**6))
    while row[-1] != END:
        past = history([row], prompt=1)
        scores = torch.rand(1, VOCAB, generator=generator)
        scores[:, :END][:, [len(TOKENIZER.decode([t])) != 1 for t in range(END)]] -= 0.3
        row.append(int(run(processor, scores, past, tokenizer=TOKENIZER, eos_token_ids=[END]).argmax()))
        if "�" in TOKENIZER.decode(row[1:]):
            row.pop()  # a broken character counts as its decoder likes
    assert least <= len(TOKENIZER.decode(row[1:-1])) <= least + more


def test_each_row_is_as_if_alone() -> None:
    texts = ["hell", "hello. a", "日本。"]
    keys = {"min_characters": 2, "max_characters": 9, "min_sentences": 1, "max_sentences": 2}
    together = after(texts, **keys)
    for row, text in enumerate(texts):
        assert torch.equal(together[row : row + 1], after([text], **keys))


# bad input -------------------------------------------------------------------------------------------


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="the minimum, 5, is above the maximum, 4"):
        TextLength(min_characters=5, max_characters=4)
    with pytest.raises(ValueError, match="the minimum, 2, is above the maximum, 1"):
        TextLength(min_sentences=2, max_sentences=1)


def test_text_needs_a_tokenizer_and_an_end() -> None:
    past = history([[0]])
    with pytest.raises(genmode.ParameterError, match="needs the tokenizer"):
        TextLength(max_characters=5).begin(context(past, eos_token_ids=[END]))
    with pytest.raises(genmode.ParameterError, match="end-of-sequence"):
        TextLength(max_characters=5).begin(context(past, tokenizer=TOKENIZER))


def test_a_vocabulary_larger_than_the_tokenizer_is_no_error() -> None:
    result = run(
        TextLength(max_characters=0),
        torch.zeros(1, VOCAB + 5),
        history([[0]], prompt=1),
        tokenizer=TOKENIZER,
        eos_token_ids=[END],
    )
    assert (~result.isneginf()).nonzero().tolist() == [[0, END]]
