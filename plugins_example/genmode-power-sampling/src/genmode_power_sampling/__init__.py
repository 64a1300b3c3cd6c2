"""Sampling from a power of the model's distribution over whole texts."""

from .strategy import PowerSampling

__all__ = ["PowerSampling"]
