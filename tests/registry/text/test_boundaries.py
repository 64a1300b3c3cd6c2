"""Boundaries: by hand, token by token."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import genmode
from genmode.text import Boundaries

WORDS = ["<pad>", "</s>", "▁", "a", "b", ".", "!", "▁a", "a.", '."', '"', "3", "\n", "a\nb", "\n\n", "。", "a. b"]


def session(tokenizer: bool = True) -> Any:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram([(word, -1.0) for word in WORDS], unk_id=0))
    made.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
    return SimpleNamespace(
        tokenizer=fast if tokenizer else None, vocab_size=len(WORDS) + 2, eos_token_ids=[1], device=torch.device("cpu")
    )


def stood(where: Any, words: list[str], prompt: list[str]) -> list[bool]:
    """Whether a row of these words stands at a boundary behind each, after a prompt."""
    ids, boundaries = [WORDS.index(word) for word in [*prompt, *words]], Boundaries(where, session())
    found: list[bool] = []
    for length in range(len(prompt), len(ids) + 1):
        history = genmode.History(torch.tensor([ids]), torch.tensor([length]), torch.zeros(1).long(), len(prompt), None)
        found.append(bool(boundaries.reached(history)))
    assert found[0] is False  # nothing is decoded yet
    return found[1:]


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (["a", ".", "▁a", "!"], [0, 1, 0, 1]),
        (["a.", "▁", "a", '."'], [1, 0, 0, 1]),
        (["a", ".", '"', "b"], [0, 1, 0, 0]),
        (["a", ".", ".", ".", "b"], [0, 1, 0, 0, 0]),
        (["3", ".", "3"], [0, 1, 0]),
        (["a", "\n", "\n\n", "b", "a\nb"], [0, 1, 0, 0, 1]),
        (["a", "。", "</s>"], [0, 1, 0]),
        (["a. b", "▁a"], [0, 0]),
        ([".", "."], [1, 0]),
    ],
)
def test_sentences(words: list[str], ends: list[int]) -> None:
    assert stood("sentence", words, ["b", "."]) == [bool(one) for one in ends]
    assert stood("sentence", words, ["b"]) == [bool(one) for one in ends]


def test_lines() -> None:
    assert stood("line", ["a.", "\n", "\n", "b", "\n\n", "a\nb"], ["\n"]) == [False, True, False, False, True, True]


def test_every_n_tokens() -> None:
    assert stood(3, ["a"] * 7, ["b"]) == [False, False, True, False, False, True, False]
    assert stood(1, ["a"] * 2, ["b"]) == [True, True]


def test_rows_of_different_lengths_and_ids_beyond_the_tokenizer() -> None:
    ids = torch.tensor([[3, 5, 18, 0], [3, 5, 0, 0], [3, 4, 4, 5]])
    history = genmode.History(ids, torch.tensor([3, 2, 4]), torch.zeros(3).long(), 1, None)
    assert Boundaries("sentence", session()).reached(history).tolist() == [False, True, True]


def test_text_needs_a_tokenizer() -> None:
    with pytest.raises(genmode.ParameterError, match="end with a sentence need the tokenizer"):
        Boundaries("sentence", session(tokenizer=False))
    Boundaries(2, session(tokenizer=False))
