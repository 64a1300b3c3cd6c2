"""The command line: `genmode list`, `show`, `explain`, `generate` and `doctor`."""

from .app import main

__all__ = ["main"]
