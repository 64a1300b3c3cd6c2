"""What is made for a tokenizer, kept as long as the tokenizer lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class TokenizerCache(Generic[T]):
    """The last few things that were made for each tokenizer.

    Args:
        most: so many are kept for each, those that were asked for last.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: WeakKeyDictionary[Any, dict[Hashable, T]] = WeakKeyDictionary()

    def get(self, tokenizer: Any, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under the key, or what `make` makes.

        Args:
            tokenizer: of transformers; what is made must not refer to it.
            key: all that it is made of, the number of tokens included: tokenizers grow.
            make: makes it.
        """
        kept = self._kept.setdefault(tokenizer, {})
        found = kept.pop(key) if key in kept else make()
        kept[key] = found  # the newest stands last
        while len(kept) > self._most:
            del kept[next(iter(kept))]
        return found
