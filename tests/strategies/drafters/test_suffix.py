"""Drafts copied from any row, by hand."""

from __future__ import annotations

from genmode_strategies.drafters.suffix import look_everywhere

from ..drafting_support import history


class TestSuffix:
    def test_another_row_that_says_more_of_the_ending(self) -> None:
        draft, follow = look_everywhere(*history([1, 5, 6, 7, 8], [2, 9, 9, 5, 6]), 3, 2)
        assert follow.tolist() == [0, 2]
        assert draft[1].tolist() == [7, 8]

    def test_the_own_row_before_another(self) -> None:
        draft, _ = look_everywhere(*history([5, 6, 1, 1, 1], [5, 6, 2, 5, 6]), 2, 1)
        assert draft[1].tolist() == [2]

    def test_a_longer_ending_elsewhere_before_the_own_row(self) -> None:
        draft, _ = look_everywhere(*history([4, 5, 6, 1, 1], [6, 2, 4, 5, 6]), 3, 1)
        assert draft[1].tolist() == [1]

    def test_padding_and_what_lies_behind_the_end_are_no_text(self) -> None:
        draft, follow = look_everywhere(*history([0, 7, 3], [4, 9, 0, 7], starts=[2, 0]), 2, 1)
        assert follow.tolist() == [0, 0]
        draft, follow = look_everywhere(*history([0, 7, 3], [4, 9, 0, 7]), 2, 1)
        assert (draft[1].tolist(), follow.tolist()) == ([3], [0, 1])

    def test_one_row_is_prompt_lookup(self) -> None:
        draft, follow = look_everywhere(*history([5, 6, 7, 8, 5, 6]), 2, 3)
        assert (draft.tolist(), follow.tolist()) == ([[7, 8, 5]], [3])
