"""Captured forwards and replayed functions, for CUDA. The room has one door: the names of this module.

The kernels beneath, `genmode.cuda.kernels`, are a room of their own, which sampling uses as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .graph_engine import GraphEngine, obstacle

__all__ = ["GraphEngine", "obstacle"]

__getattr__, __dir__ = lazily(__name__, {"GraphEngine": "graph_engine", "obstacle": "graph_engine"}, __all__)
