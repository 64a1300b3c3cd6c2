"""No change of the contract goes unseen."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from . import contract_surface

Source = Callable[..., str]


def test_the_surface_is_the_one_that_is_written_down() -> None:
    written = contract_surface.FILE.read_text(encoding="utf-8").splitlines()
    found = contract_surface.surface().splitlines()
    changed = "\n".join(difflib.unified_diff(written, found, "docs/contract.txt", "the code", lineterm="", n=0))
    assert not changed, (
        f"the contract has changed:\n{changed}\nIf that is meant: say it in CHANGELOG.md, raise CONTRACT_VERSION if a "
        "plugin written for it would break, and run `python tests/registry/contract/contract_surface.py`"
    )


def test_the_surface_sees_every_kind_of_change() -> None:
    class It:
        """One.

        Attributes:
            first, second: two.
            third: one.
        """

        __slots__ = ("_hidden", "slot")
        number: int = 3

        def method(self, a: int, *rest: str, b: bool = True, **more: object) -> str: ...

        @property
        def read(self) -> int: ...

        @classmethod
        def make(cls, /) -> None: ...

        def _private(self) -> None: ...

    assert list(contract_surface.described(It))[1:] == [
        "  first  (attribute)",
        "  make classmethod (cls) -> None",
        "  method(self, a: int, *rest: str, b: bool = True, **more: object) -> str",
        "  number: int = 3",
        "  read int (property)",
        "  second  (attribute)",
        "  slot  (attribute)",
        "  third  (attribute)",
    ]
