"""The strategy keeps the promises of genmode's contract."""

from collections.abc import Callable

from genmode_power_sampling import PowerSampling

from genmode.testing import Case, parametrize_with_checks

CASES = [
    PowerSampling,
    Case(PowerSampling, {"power_alpha": 1.5, "power_block": 4, "power_stop": True}, label="power_sampling that stops"),
]


@parametrize_with_checks(CASES)
def test_conformance(check: Callable[[], None]) -> None:
    check()
