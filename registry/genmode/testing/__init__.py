"""The conformance kit: checks of components, and what their tests need.

Names only, each imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case import Case
    from .check import Check, checks
    from .doubles import FakeClock, RecordingStreamer
    from .host import isolated_host
    from .run import ConformanceError, Outcome, Report, check_component, parametrize_with_checks

__all__ = [
    # checks
    "check_component",
    "parametrize_with_checks",
    "checks",
    "Case",
    "Check",
    "Outcome",
    "Report",
    "ConformanceError",
    # for tests
    "isolated_host",
    "FakeClock",
    "RecordingStreamer",
]

_MODULES = {
    "case": "Case",
    "check": "Check checks",
    "doubles": "FakeClock RecordingStreamer",
    "host": "isolated_host",
    "run": "check_component parametrize_with_checks Outcome Report ConformanceError",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
