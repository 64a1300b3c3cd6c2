"""All checks of each kind of component."""

from __future__ import annotations

from ..contract import COMPONENT_KINDS, Kind
from ..errors import ParameterError
from ..plugins.settings import hint
from .harness.check import Check, declared


def checks_of(kind: str) -> tuple[Check, ...]:
    """All checks of a kind, in the order in which they are run.

    Raises:
        ParameterError: there is no such kind.
    """
    if kind not in COMPONENT_KINDS:
        raise ParameterError(
            f"there is no kind {kind!r}{hint(kind, COMPONENT_KINDS)} (there are {', '.join(COMPONENT_KINDS)})"
        )
    from .checks import (
        declarations,
        drafts,
        flags,
        marks,
        scores,
        step_by_step,
        strategy_conduct,
        strategy_results,
        verifying,
        whole_calls,
    )

    order = (
        declarations,
        strategy_results,
        strategy_conduct,
        scores,
        flags,
        step_by_step,
        whole_calls,
        marks,
        drafts,
        verifying,
    )
    places = {module.__name__: place for place, module in enumerate(order)}
    return tuple(sorted(declared(Kind(kind)), key=lambda one: places[one.function.__module__]))
