"""How the contract changes: the author of a plugin is warned, its users are not.

A contract from `OLDEST_CONTRACT` to `CONTRACT_VERSION` is accepted. What is older than the newest, and what defines
or calls a member that is on its way out, gives a `ContractWarning`, a PendingDeprecationWarning: Python shows
these under pytest and in `genmode doctor`, and leaves them out everywhere else unless asked
(`python -W always::PendingDeprecationWarning`). The warning is placed in the plugin's own file.

To take a member out of the contract: let it work on for one version of the contract, name it in `DEPRECATED` if
plugins define it, or mark it with `deprecated` if they call it, and say so in CHANGELOG.md.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

DEPRECATED: Mapping[str, str] = {}
"""`Class.member` of what plugins define -> what to do instead. Empty: contract 1 is the first."""


class ContractWarning(PendingDeprecationWarning):
    """A plugin uses a part of the contract that a later version will not have."""


def deprecated(since: int, instead: str) -> Callable[[F], F]:
    """Mark a function of the contract that plugins call; each call warns in the caller's file.

    Args:
        since: the version of the contract that no longer wants it.
        instead: what to call, as a sentence without a full stop.
    """

    def mark(function: F) -> F:
        @functools.wraps(function)
        def warned(*args: Any, **kwargs: Any) -> Any:
            message = f"{function.__qualname__} is deprecated since contract {since}; {instead}"
            warnings.warn(message, ContractWarning, stacklevel=2)
            return function(*args, **kwargs)

        return cast("F", warned)

    return mark


def advise(found: Any, what: str, version: int, newest: int) -> None:
    """Warn the author of a component class or hook plugin, in its own file, of all that is on its way out.

    Args:
        what: the component in words, with its distribution.
        version, newest: the contract it was written for, and the one that this host offers.
    """
    notes: list[str] = []
    if version < newest:
        notes.append(f"was written for contract {version}; state {newest} after reading CHANGELOG.md")
    if isinstance(found, type):
        for base in found.__mro__:
            gone = {m: DEPRECATED[f"{base.__name__}.{m}"] for m in vars(base) if f"{base.__name__}.{m}" in DEPRECATED}
            notes += [f"defines {m}, which is deprecated; {why}" for m, why in gone.items() if _defines(found, base, m)]
    for note in notes:
        warnings.warn_explicit(f"{what} {note}", ContractWarning, *_place(found), registry={})


def _defines(found: type, base: type, member: str) -> bool:
    return next(cls for cls in found.__mro__ if member in vars(cls)) is not base


def _place(found: Any) -> tuple[str, int]:
    """File and line of a definition."""
    try:
        file = inspect.getsourcefile(found) or "?"
        return file, max(1, inspect.getsourcelines(found)[1])
    except (OSError, TypeError):
        return "?", 1
