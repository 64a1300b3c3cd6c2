"""Components that stand in for classes of transformers.

Only an object of transformers' own class is taken over: a class of the same name, or a subclass, may do anything. Asked are
the components in force under names that genmode itself offers: its own, or one that `prefer` has put in the place of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..contract.kinds import Kind
from ..contract.stand_in import StandIn
from ..hf import flags
from .registry import Registry

Adopters = Mapping[str, Sequence[type[StandIn]]]


def adopters_of(host: Registry, *kinds: Kind) -> Adopters:
    """The components of these kinds that stand in for classes of transformers, by the name of the class."""
    classes: dict[str, list[type[StandIn]]] = {}
    for cls in (one for kind in kinds for one in host.own(kind)):
        if issubclass(cls, StandIn):
            for name in cls.replaces:
                classes.setdefault(name, []).append(cls)
    return classes


def adopted(theirs: Any, adopters: Adopters, tokenizer: Any = None) -> Any:
    """What stands in for this object of transformers; None if nothing does."""
    name = type(theirs).__name__
    classes = adopters.get(name, ()) if flags.is_own(theirs, name) else ()
    equals = (cls.adopt(theirs, tokenizer) for cls in classes)
    return next((one for one in equals if one is not None), None)
