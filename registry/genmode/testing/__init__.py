"""The conformance kit: checks of components, and what their tests need.

Names only, each imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

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
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
