"""Which version of genmode the code is."""

__version__ = "0.1.0"
