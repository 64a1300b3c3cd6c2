"""A running call: what a strategy may use, and all that it may use."""

from .companion import Companion
from .forerunner import Forerunner
from .history import History
from .rehearsal import Rehearsal
from .session import Session
from .step import Step

__all__ = ["Companion", "Forerunner", "History", "Rehearsal", "Session", "Step"]
