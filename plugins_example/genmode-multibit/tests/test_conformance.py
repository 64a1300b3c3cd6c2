"""The watermarker keeps the promises of genmode's contract, whether the message is known or not."""

from collections.abc import Callable

from genmode_multibit import Mpac

from genmode.testing import Case, parametrize_with_checks

KEY = {"key": 20261, "bias": 4.0}
CASES = [
    Case(Mpac, {**KEY, "message": "10110010"}, label="mpac with a message"),
    Case(Mpac, {**KEY, "bits": 4, "context_width": 2}, label="mpac with any message"),
]


@parametrize_with_checks(CASES)
def test_conformance(check: Callable[[], None]) -> None:
    check()
