"""Drafts as text: old and new ids of it joined, by hand."""

from __future__ import annotations

from genmode_strategies.drafters.streams import shared
from genmode_strategies.drafters.text import joined


class TestJoined:
    def test_the_same_ending(self) -> None:
        assert joined([1, 2, 3], [2, 3], [2, 3, 4]) == [1, 2, 3, 4]

    def test_the_last_token_becomes_another(self) -> None:
        assert joined([1, 2, 3], [2, 3], [2, 7]) == [1, 2, 7]

    def test_a_window_that_begins_within_a_token(self) -> None:
        assert joined([1, 2, 3], [8, 3], [8, 3, 4]) == [1, 2, 3, 4]

    def test_what_does_not_fit(self) -> None:
        assert joined([1, 2, 3], [4, 5], [4, 5, 6]) is None
        assert joined([1, 2, 3], [8, 3], [9, 3, 4]) is None

    def test_shared(self) -> None:
        assert [shared([1, 2, 3], [1, 2, 4]), shared([1, 2], [1, 2, 3]), shared([], [1])] == [2, 2, 0]
