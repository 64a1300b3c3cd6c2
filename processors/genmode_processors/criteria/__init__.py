"""When a row stops."""

from .certainty import Confidence, Entropy
from .custom import Callable
from .eos import Eos
from .max_length import MaxLength
from .max_time import MaxTime
from .ngram_loop import NgramLoop
from .row_limits import RowLimits
from .stop_regex import StopRegex
from .stop_strings import StopStrings

__all__ = [
    "Callable",
    "Confidence",
    "Entropy",
    "Eos",
    "MaxLength",
    "MaxTime",
    "NgramLoop",
    "RowLimits",
    "StopRegex",
    "StopStrings",
]
