"""The processor keeps the promises of genmode's contract."""

from collections.abc import Callable

from genmode_house_style import HouseStyle

from genmode.testing import Case, parametrize_with_checks

CASES = [
    HouseStyle,
    Case(HouseStyle, {"house_style_never": (), "house_style_prefer": {"c7": "d3", "a1": "b1"}}, label="preferring"),
    Case(HouseStyle, {"house_style_retries": 0}, label="one ahead"),
]


@parametrize_with_checks(CASES)
def test_conformance(check: Callable[[], None]) -> None:
    check()
