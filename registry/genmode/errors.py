"""Every error that genmode raises on purpose.

A message says what was given, what is allowed, and what to do. An error that wraps another keeps it as
`__cause__`. Each class also derives from the built-in a caller would catch without knowing genmode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class GenmodeError(Exception):
    """Base of all errors that genmode raises."""


class UnknownComponentError(GenmodeError, LookupError):
    """No installed or registered component has the name that was asked for."""


class ConflictError(GenmodeError):
    """Two distributions provide one name, or two components one parameter, and no setting picks one."""


class DisabledError(GenmodeError):
    """The component exists, but a setting keeps it from being loaded."""


class PluginLoadError(GenmodeError, ImportError):
    """A plugin could not be imported, or what it provides is not a component of the announced kind."""


class ContractVersionError(PluginLoadError):
    """The plugin was written for a version of the contract that this host does not offer."""


class LockError(PluginLoadError):
    """The lock cannot be read, or what is installed is not what it says."""


class ParameterError(GenmodeError, ValueError):
    """A parameter is unknown, of the wrong type, out of range, or contradicts another one."""


class UnsupportedError(GenmodeError, NotImplementedError):
    """This model cannot run what was asked, whatever the parameters."""


class DecodingError(GenmodeError, RuntimeError):
    """Decoding failed after it had begun.

    Attributes:
        sequences: what had been decoded when it failed, `[rows, length]`, long, prompt included; finished
            rows are padded on the right. None if nothing had been decoded.
        step: number of the failing step, counted from 0; None before the first.
        component: name of the plugin's component that failed, None if it was not a plugin.
        row: the row that failed where one row can be named.
    """

    def __init__(
        self,
        message: str,
        *,
        sequences: Tensor | None = None,
        step: int | None = None,
        component: str | None = None,
        row: int | None = None,
    ) -> None:
        super().__init__(message)
        self.sequences = sequences
        self.step = step
        self.component = component
        self.row = row


class CancelledError(DecodingError):
    """The caller cancelled the call; `sequences` holds what had been decoded."""
