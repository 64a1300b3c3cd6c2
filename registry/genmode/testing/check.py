"""A check: one promise of the contract, tried on one component.

A check is a function of a `Case`. It returns None or a note on what it measured, and ends early by `fail`, or
by `inapplicable` where the component has nothing to try. Its docstring says what a user loses if the promise
is broken.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ..contract import KINDS, Kind
from ..errors import ParameterError
from ..settings import hint

if TYPE_CHECKING:
    from .case import Case

Function = Callable[["Case"], "str | None"]

MODULES: dict[Kind, tuple[str, ...]] = {
    "strategies": ("common", "strategies", "conduct"),
    "processors": ("common", "processors", "rows", "calls"),
    "criteria": ("common", "criteria", "rows", "calls"),
    "watermarkers": ("common", "processors", "rows", "calls", "watermarkers"),
}
"""Where the checks of a kind stand."""


class CheckFailedError(AssertionError):
    """A component breaks a promise; the message says which, and what to change."""


class NotApplicableError(Exception):
    """There is nothing that this check could try on the component; the message says why."""


@dataclass(frozen=True)
class Check:
    """One named check of one kind of component."""

    kind: Kind
    name: str
    function: Function

    @property
    def explanation(self) -> str:
        """What the component promises, in a sentence or two."""
        return " ".join((inspect.getdoc(self.function) or "").split())


_found: dict[Kind, dict[str, Check]] = {kind: {} for kind in KINDS}


def check(*kinds: Kind) -> Callable[[Function], Function]:
    """Declare a function as a check of these kinds, under its own name."""

    def declare(function: Function) -> Function:
        for kind in kinds:
            _found[kind][function.__name__] = Check(kind, function.__name__, function)
        return function

    return declare


def checks(kind: Kind) -> tuple[Check, ...]:
    """All checks of a kind, in the order in which they are run.

    Raises:
        ParameterError: there is no such kind.
    """
    if kind not in MODULES:
        raise ParameterError(f"there is no kind {kind!r}{hint(kind, KINDS)} (there are {', '.join(KINDS)})")
    for module in MODULES[kind]:
        importlib.import_module(f".{module}", __package__)
    return tuple(_found[kind].values())


def fail(message: str) -> NoReturn:
    """The component breaks the promise."""
    raise CheckFailedError(message)


def require(kept: bool, message: str) -> None:
    """Fail unless the promise is kept."""
    if not kept:
        fail(message)


def inapplicable(reason: str) -> NoReturn:
    """There is nothing to try."""
    raise NotApplicableError(reason)
