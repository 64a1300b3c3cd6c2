"""A strategy and a processor for genmode that sample with less randomness where it hurts."""

from .entropy_gate import EntropyGate
from .factual_nucleus import FactualNucleus

__all__ = ["EntropyGate", "FactualNucleus"]
