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
    kept = _known.get(host)
    if kept is None or kept[0] != host.revision:
        kept = _known[host] = (host.revision, {})
    revision, found = kept
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
        _known[host] = (revision, found)
    return found[kind]


def adopters_for(thing: Any, adopters: Adopters) -> Sequence[type[Any]]:
    """Those that may stand in for this object."""
    name = type(thing).__name__
    return adopters.get(name, ()) if seam.is_own(thing, name) else ()
