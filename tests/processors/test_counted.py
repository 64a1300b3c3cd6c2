"""What patterns count."""

from __future__ import annotations

import pytest

from genmode_processors.counted import MOST, Count, check_size, count


@pytest.mark.parametrize(
    ("pattern", "size", "nested"),
    [
        ("", 0, 1),
        ("abc", 3, 1),
        ("a{9}", 9, 1),
        ("(?:a{30}){40,50}", 1500, 50),
        ("(a{0,30}){0,40}b", 1201, 1200),
        ("(a{2,3}b{4,5}){2}", 16, 5),
        ("a*|b+", 2, 1),
        ("(ab|c){3,}", 9, 1),
        (r"\({9}[({]{2}", 11, 1),
        ("[]({9}]", 1, 1),
        ("[^](]{5}", 5, 1),
        (r"(?P<n>a)(?=b)(?i:c){4}", 6, 1),
        ("(((a{1000}){1000}){1000}", 10**9, 1),
        ("a)b{3}", 5, 1),
    ],
)
def test_by_hand(pattern: str, size: int, nested: int) -> None:
    assert count(pattern) == Count(size, nested)


def test_the_bound() -> None:
    check_size(f"a{{{MOST}}}")
    with pytest.raises(ValueError, match=f"has {MOST + 1} characters"):
        check_size(f"a{{{MOST}}}b")
