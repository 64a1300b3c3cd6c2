"""A running call: what a strategy may use, and all that it may use."""

from .history import History
from .session import Session
from .step import Step

__all__ = ["History", "Session", "Step"]
