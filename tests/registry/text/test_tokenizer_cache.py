"""What is kept of each tokenizer."""

from __future__ import annotations

import gc
import weakref

from genmode.text import TokenizerCache


class Words:
    """Stands for a tokenizer."""


def test_the_last_few_are_kept_for_each_tokenizer() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    cache, first, second = TokenizerCache[str](2), Words(), Words()
    for key in ("a", "b", "a", "c", "a", "b"):  # "c" puts out "b", which is asked for less lately than "a"
        assert cache.get(first, key, lambda key=key: make(key)) == key
    assert made == ["a", "b", "c", "b"]
    cache.get(second, "a", lambda: make("a of the second"))
    assert made[-1] == "a of the second"


def test_nothing_keeps_a_tokenizer_alive() -> None:
    cache, words = TokenizerCache[int](2), Words()
    cache.get(words, "a", lambda: 1)
    gone = weakref.ref(words)
    del words
    gc.collect()
    assert gone() is None
