"""Choosing tokens: the highest of a row's scores, truncation and draws on candidates, and random numbers by counter.

Names only, each imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from . import counter_rng
    from .candidates import ROUNDING, Candidates, Narrowing, precise
    from .division import by_number, number_divisors
    from .masking import keep_best, without_tail
    from .selection import (
        ascending,
        highest,
        highest_values,
        kth_highest,
        log_softmax,
        numpy_reads,
        order_of,
        softmax,
        sums,
        topk,
    )

__all__ = [
    # of each row, exactly and without sorting the vocabulary
    "topk",
    "highest",
    "highest_values",
    "kth_highest",
    "keep_best",
    "without_tail",
    "ascending",
    "order_of",
    "softmax",
    "log_softmax",
    "sums",
    "numpy_reads",
    "number_divisors",
    "by_number",
    # the fused end of a chain
    "Candidates",
    "Narrowing",
    "ROUNDING",
    "precise",
    # random numbers, a module
    "counter_rng",
]

_MODULES = {
    "candidates": "ROUNDING Candidates Narrowing precise",
    "division": "by_number number_divisors",
    "masking": "keep_best without_tail",
    "selection": """topk highest highest_values kth_highest ascending order_of softmax log_softmax sums
        numpy_reads""",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
