"""The strategy keeps the promises of genmode's contract."""

from collections.abc import Callable

from genmode_fresh_words import FreshWords

from genmode.testing import parametrize_with_checks


@parametrize_with_checks([FreshWords])
def test_conformance(check: Callable[[], None]) -> None:
    check()
