"""Components that stand in for classes of transformers.

Only an object of transformers' own class is taken over: a class of the same name, or a subclass, may do anything. Asked are
the components in force under names that genmode itself offers: its own, or one that `prefer` has put in the place of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pydantic

from ..contract import Component
from ..contract.kinds import Kind
from ..contract.stand_in import StandIn
from ..hf import flags
from .parameters import explained, showable
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
    """What stands in for this object of transformers; None if nothing does.

    Raises:
        ParameterError: the object holds a value that what stands in for it does not take.
    """
    name = type(theirs).__name__
    classes = adopters.get(name, ()) if flags.is_own(theirs, name) else ()
    equals = (_equal(cls, theirs, tokenizer) for cls in classes)
    return next((one for one in equals if one is not None), None)


def _equal(cls: type[StandIn], theirs: Any, tokenizer: Any) -> Any:
    held = vars(theirs)  # what is a secret in it has a key's name there as well
    try:
        return cls.adopt(theirs, tokenizer)
    except pydantic.ValidationError as error:
        component = cast("type[Component]", cls)  # as all that are asked are
        wrong, cause = explained(component, error.errors(), "", held), showable(error, held)
    raise wrong from cause  # here, since an error keeps the one it is raised in
