"""Tables of phrases."""

from __future__ import annotations

from genmode.text.phrases import KEPT, phrase_table

from ...processors.criteria.text_support import BYTES


def test_tables_are_kept_for_the_last_few_phrases() -> None:
    first = phrase_table(["a"], BYTES)
    assert phrase_table(["a"], BYTES) is first
    for number in range(KEPT):
        phrase_table([f"other {number}"], BYTES)
    assert phrase_table(["a"], BYTES) is not first
