"""Structured output: outputs that are texts of a grammar."""

from .engines import installed
from .grammar import Grammar, UnmetGrammarWarning

__all__ = ["Grammar", "UnmetGrammarWarning", "installed"]
