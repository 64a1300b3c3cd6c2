"""Text comes in whole characters, as its tokens come, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from genmode.text.pieces import TextPieces


def byte_level() -> PreTrainedTokenizerFast:
    """A token for each byte, so that a character of n bytes is n tokens; and one special token, id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({"<s>": 0, **{one: index + 1 for index, one in enumerate(alphabet)}}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """Words that begin with a mark for the space before them, which the first word of a text is without."""
    words = ["<s>", "\u2581a", "\u2581b", "c", "\u2581"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<s>"))
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


BYTES = byte_level()


def pieces(tokenizer: PreTrainedTokenizerFast, ids: list[int], at_once: int = 1) -> list[str]:
    text = TextPieces(tokenizer)
    return [*(text.add(ids[at : at + at_once]) for at in range(0, len(ids), at_once)), text.rest()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab c", ["a", "b", " ", "c", ""]),  # nothing waits for a space
        ("\u00e9a", ["", "\u00e9", "a", ""]),
        ("\u4eca\u5929", ["", "", "\u4eca", "", "", "\u5929", ""]),
        ("\U0001f389", ["", "", "", "\U0001f389", ""]),
    ],
)
def test_a_character_comes_with_its_last_token(text: str, expected: list[str]) -> None:
    assert pieces(BYTES, BYTES.encode(text, add_special_tokens=False)) == expected


def test_half_a_character_at_the_end_is_told() -> None:
    ids = BYTES.encode("a\u00e9", add_special_tokens=False)[:-1]
    assert pieces(BYTES, ids) == ["a", "", "\ufffd"]


def test_special_tokens_are_no_text() -> None:
    ids = BYTES.encode("ab", add_special_tokens=False)
    assert pieces(BYTES, [0, ids[0], 0, ids[1], 0]) == ["", "a", "", "b", "", ""]


def test_spaces_that_a_tokenizer_puts_between_words() -> None:
    assert pieces(sentence_pieces(), [1, 2, 3, 4, 1]) == ["a", " b", "c", " ", " a", ""]


@given(st.text(max_size=12), st.integers(1, 5))
def test_the_pieces_are_the_text(text: str, at_once: int) -> None:
    ids = BYTES.encode(text, add_special_tokens=False)
    found = pieces(BYTES, ids, at_once)
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found) or "\ufffd" in text


@given(st.lists(st.integers(0, 256), max_size=12))
def test_any_bytes_give_what_the_tokenizer_gives(ids: list[int]) -> None:
    assert "".join(pieces(BYTES, ids)) == BYTES.decode(ids, skip_special_tokens=True)
