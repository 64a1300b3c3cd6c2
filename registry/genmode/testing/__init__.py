"""The conformance kit: checks of components, and what their tests need.

Names only, each imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .catalogue import checks_of
    from .harness.case import Case
    from .harness.check import Check
    from .harness.doubles import FakeClock, RecordingStreamer
    from .harness.host import isolated_host
    from .harness.run import ConformanceError, Outcome, Report, check_component, parametrize_with_checks

__all__ = [
    # checks
    "check_component",
    "parametrize_with_checks",
    "checks_of",
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
    "harness.case": "Case",
    "catalogue": "checks_of",
    "harness.check": "Check",
    "harness.doubles": "FakeClock RecordingStreamer",
    "harness.host": "isolated_host",
    "harness.run": "check_component parametrize_with_checks Outcome Report ConformanceError",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
