"""genmode's own components that stand in for classes of transformers.

Only an object of transformers' own class is taken over: a class of the same name, or a subclass, may do anything.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .. import seam
from ..registry import Registry

Adopters = Mapping[str, Sequence[type[Any]]]

_known: weakref.WeakKeyDictionary[Registry, tuple[int, dict[str, Adopters]]] = weakref.WeakKeyDictionary()


def adopters_of(host: Registry, kind: Literal["processors", "criteria"]) -> Adopters:
    """The built-in components that stand in for classes of transformers, by the name of the class."""
    known = _known.get(host)
    if known is None or known[0] != host.revision:
        known = _known[host] = (host.revision, {})
    found = known[1]
    if kind not in found:
        classes: dict[str, list[type[Any]]] = {}
        # a watermarker is a processor as well
        beside = host.components("watermarkers") if kind == "processors" else ()
        for info in (*host.components(kind), *beside):
            if info.distribution == "genmode" and info.state in ("discovered", "loaded"):
                cls: Any = host.get(info.kind, info.name)
                for name in cls.replaces:
                    classes.setdefault(name, []).append(cls)
        found[kind] = classes
    return found[kind]


def adopted(thing: Any, adopters: Adopters, *more: Any) -> Any:
    """What stands in for this object of transformers, by `adopt(thing, *more)`; None if nothing does."""
    name = type(thing).__name__
    classes = adopters.get(name, ()) if seam.is_own(thing, name) else ()
    equals = (cls.adopt(thing, *more) for cls in classes)
    return next((one for one in equals if one is not None), None)
