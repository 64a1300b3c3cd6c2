"""The command line: `genmode list`, `show`, `explain`, `generate`, `doctor`, `new` and `check`."""

from .app import main

__all__ = ["main"]
