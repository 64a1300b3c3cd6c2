"""The command line: `genmode list`, `show`, `explain`, `generate`, `detect`, `doctor`, `new`, `check` and `lock`."""

from .app import main

__all__ = ["main"]
