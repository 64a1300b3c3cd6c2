"""A check: one promise of the contract, tried on one component.

A check is a function of a `Case`. It returns None or a note on what it measured, and ends early by `fail`, or
by `inapplicable` where the component has nothing to try. Its docstring says what a user loses if the promise
is broken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ...contract import COMPONENT_KINDS, Kind

if TYPE_CHECKING:
    from .case import Case

Function = Callable[["Case"], "str | None"]


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


_found: dict[Kind, dict[str, Check]] = {kind: {} for kind in COMPONENT_KINDS}


def check(*kinds: Kind) -> Callable[[Function], Function]:
    """Declare a function as a check of these kinds, under its own name."""

    def declare(function: Function) -> Function:
        for kind in kinds:
            _found[kind][function.__name__] = Check(kind, function.__name__, function)
        return function

    return declare


def declared(kind: Kind) -> tuple[Check, ...]:
    """The checks of a kind whose modules have been imported, in the order of their declaration."""
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
