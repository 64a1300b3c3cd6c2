"""Values that are not shown: of parameters that are keys by their name, from where they are given to where they are used.

A config and a call keep such a value in a `Secret`, which prints as stars, is not written to JSON, is not pickled and,
where an object is copied, goes along. `reveal` gives the value, at the one place where `Params` are built of it.
"""

from __future__ import annotations

from typing import Any

from ..contract import is_secret
from ..contract.component import HIDDEN
from ..errors import ParameterError


class Secret:
    """A value that neither `repr`, nor `str`, nor a pickle shows. Equal to an equal value, hidden or not."""

    __slots__ = ("_lost", "_value")

    def __init__(self, value: Any = None, lost: bool = False) -> None:
        self._value, self._lost = value, lost

    def reveal(self) -> Any:
        """The value; ParameterError where a pickle has left it behind."""
        if self._lost:
            raise ParameterError(
                "the secret of a pickled configuration was left behind, as it is in every pickle; give it again, or "
                "name where it is to be read: WatermarkingConfig(scheme, key_from='env:NAME')"
            )
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            return self._lost == other._lost and bool(self._value == other._value)
        return not self._lost and bool(self._value == other)

    __hash__ = None  # type: ignore[assignment]  # the hash of a number is that number

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce__(self) -> Any:
        return Secret, (None, True)


def guarded(key: str, value: Any) -> Any:
    """The value, in a `Secret` if it is one by the name of its key."""
    return Secret(value) if value is not None and is_secret(key) and not isinstance(value, Secret) else value


def reveal(value: Any) -> Any:
    """The value in a `Secret`; any other as it is."""
    return value.reveal() if isinstance(value, Secret) else value


def without_secrets(text: str, values: Any) -> str:
    """The text with stars in place of each value that is a secret by its key; short ones would be found by accident."""
    for key, value in values.items():
        plain = str(reveal(value)) if is_secret(key) else ""
        if len(plain) >= 4:
            text = text.replace(plain, HIDDEN)
    return text
