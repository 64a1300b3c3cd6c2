"""What discovery speaks of: entries, faults, the metadata that they are read from, and how names compare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_COMPONENT_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)


class Entry(NamedTuple):
    """One line of a distribution's `entry_points.txt`: a component or a hook plugin, not imported.

    `kind` is the value of a `Kind`, `value` names the object as `module:attribute`, `distribution` is
    normalised (`my-plugin`), `path` is the folder of the metadata.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    path: str


class Fault(NamedTuple):
    """Something about an installed plugin that keeps it, or a part of it, from being used.

    `name` is the component's where one can be named, else empty; so is `kind`.
    """

    distribution: str
    version: str
    name: str
    reason: str
    path: str
    kind: str = ""

    def __str__(self) -> str:
        what = f"{self.kind}:{self.name} of " if self.name else ""
        return f"{what}{self.distribution} {self.version}: {self.reason} ({self.path})"


class Scan(NamedTuple):
    """The result of `scan`; each part is sorted.

    `shadowed` holds entries that another distribution of the same name hides, `hiders` the metadata folder of
    that one, by name. `impostors` are the faults that tell of a name taken by one that is not meant by it, `names`
    all that is installed, whether or not it offers anything.
    """

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    shadowed: tuple[Entry, ...]
    hiders: Mapping[str, str] = {}
    impostors: tuple[Fault, ...] = ()
    names: frozenset[str] = frozenset()


class Metadata(NamedTuple):
    """What is read of one distribution. `text` is empty unless it mentions a group of ours."""

    name: str
    version: str
    folder: str
    path: str
    complete: bool
    text: str


@lru_cache(maxsize=4096)  # names are compared with every pattern of the settings
def canonical(name: str) -> str:
    """A distribution's name as PyPI compares it: lower case, runs of `-`, `_` and `.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def valid_name(name: str) -> bool:
    """Whether a component can have this name: letters, digits, `_`, and between them `-` and `.`."""
    return _COMPONENT_NAME.fullmatch(name) is not None
