"""A watermark that carries a message of several bits."""

from .mpac import Mpac, Reading

__all__ = ["Mpac", "Reading"]
