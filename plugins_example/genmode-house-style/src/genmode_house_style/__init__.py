"""Terms that never appear in a text, as whole words and in any case."""

from .processor import HouseStyle

__all__ = ["HouseStyle"]
