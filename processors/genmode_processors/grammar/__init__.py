"""Structured output: outputs that are texts of a grammar."""

from .grammar import Grammar, UnmetGrammarWarning
from .matchers import installed

__all__ = ["Grammar", "UnmetGrammarWarning", "installed"]
