"""Watermarks: configuration, keys, evidence, detection.

Names only, each imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .config import WatermarkingConfig
    from .decision import first_of_each, judge
    from .detection import detect, padded, token_ids
    from .null_distributions import Bernoulli, Exponential, Lattice, WeightedBernoulli

__all__ = [
    "WatermarkingConfig",
    # detection
    "detect",
    "judge",
    "token_ids",
    "padded",
    "first_of_each",
    # evidence in text without the mark
    "Bernoulli",
    "Exponential",
    "Lattice",
    "WeightedBernoulli",
]

_MODULES = {
    "config": "WatermarkingConfig",
    "decision": "first_of_each judge",
    "detection": "detect padded token_ids",
    "null_distributions": "Bernoulli Exponential Lattice WeightedBernoulli",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
