"""The lock: which distribution provides which component, and what its files have to contain.

A lock is a JSON file that `genmode lock` writes. With the setting `lock` a third-party component is loaded
only if the lock names it, from the distribution, in the version and with the file contents that it names.
All of this is checked before anything of the distribution is imported, once for each distribution; a call
pays nothing for it. What differs is an error, never a warning.

Which files are hashed is in `fingerprint`. What is imported of a distribution from then on is one of these files, looked
at once more when it is imported, and compiled from its source (`locked_imports`).

Not covered: genmode itself with its built-in components (a check cannot vouch for the code that it is part
of), what the program registers, a distribution's dependencies, and what runs before a component is asked for:
`.pth` files, `sitecustomize`, import hooks. See docs/security.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..atomic import write_text
from ..errors import LockError
from .discovery import Entry
from .fingerprint import covered, fingerprint, top
from .identity import HOST, REGISTERED
from .loading import origin
from .locked_imports import Guard, guard

FORMAT = 1


class Locked(NamedTuple):
    """One distribution of a lock; `files` maps paths, as RECORD writes them, to `sha256:...`."""

    version: str
    files: Mapping[str, str]


class Lock:
    """The content of a lock file.

    Attributes:
        path: where it was read from or is to be written.
        components: (kind, name) -> the distribution that provides it.
        distributions: name -> version and files.
    """

    def __init__(
        self, path: str, components: Mapping[tuple[str, str], str], distributions: Mapping[str, Locked]
    ) -> None:
        self.path, self.components, self.distributions = path, components, distributions
        self._verified: dict[str, str] = {}
        self._guards: dict[str, Guard] = {}
        self.remedy = f"if that is what you want, review the package and run `genmode lock {path}`"

    @classmethod
    def read(cls, path: str) -> Lock:
        """Read a lock file.

        Raises:
            LockError: it cannot be read, or is not a lock of a format that this genmode knows.
        """
        remedy = f"write one with `genmode lock {path}`, or unset GENMODE_LOCK"
        try:
            with open(path, encoding="utf-8") as file:
                data: Any = json.load(file)
        except (OSError, ValueError) as error:
            raise LockError(f"the lock {path} cannot be read: {type(error).__name__}: {error}; {remedy}") from error
        try:
            if data["genmode_lock"] != FORMAT:
                raise ValueError(f"its format is {data['genmode_lock']!r}, and this genmode reads {FORMAT}")
            components = {_key(name): str(provider) for name, provider in data["components"].items()}
            distributions = {
                name: Locked(str(one["version"]), {str(k): str(v) for k, v in one["files"].items()})
                for name, one in data["distributions"].items()
            }
            if missing := set(components.values()) - distributions.keys():
                raise ValueError(f"it names {', '.join(sorted(missing))}, but none of their files")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LockError(f"the lock {path} is malformed: {type(error).__name__}: {error}; {remedy}") from error
        return cls(path, components, distributions)

    def write(self) -> None:
        """Write the file whole or not at all; OSError where that is impossible."""
        data = {
            "genmode_lock": FORMAT,
            "components": {f"{kind}:{name}": one for (kind, name), one in sorted(self.components.items())},
            "distributions": {
                name: {"version": one.version, "files": dict(sorted(one.files.items()))}
                for name, one in sorted(self.distributions.items())
            },
        }
        write_text(self.path, json.dumps(data, indent=2) + "\n")

    def refusal(self, entry: Entry) -> str | None:
        """Why the entry may not be loaded; None if it may, provided that `verify` agrees."""
        pinned = self.components.get((entry.kind, entry.name))
        if pinned is not None and pinned != entry.distribution:
            return f"the lock {self.path} says that {pinned} provides it; {self.remedy}"
        if pinned is None and entry.distribution not in (HOST, REGISTERED):
            return f"the lock {self.path} does not name it; {self.remedy}"
        return None

    def missing(self, entries: Iterable[Entry]) -> list[str]:
        """One sentence for each component of the lock that is not installed."""
        installed = {(entry.kind, entry.name, entry.distribution) for entry in entries}
        return [
            f"the lock {self.path} names {kind}:{name} of {provider}, which is not installed; {self.remedy}"
            for (kind, name), provider in sorted(self.components.items())
            if (kind, name, provider) not in installed
        ]

    def differences(self, installed: Iterable[Entry]) -> list[str]:
        """Everything that differs between the lock and what is installed, one sentence each."""
        told = self.missing(installed := list(installed))
        return told + [one for name in self.distributions for one in self._differences(name, installed)]

    def trouble(self, entry: Entry, installed: Iterable[Entry]) -> str:
        """How the entry's distribution differs from the lock, in one sentence; empty if it does not. Looked at once."""
        if entry.distribution not in self._verified:
            told = self._differences(entry.distribution, installed)
            more = f" ({len(told) - 1} more differ; `genmode lock --check {self.path}` lists them)" * (len(told) > 1)
            self._verified[entry.distribution] = told[0] + more if told else ""
        return self._verified[entry.distribution]

    def verify(self, entry: Entry, installed: Iterable[Entry]) -> None:
        """Refuse an entry whose distribution differs from the lock, and hold what is imported of it from now on.

        Raises:
            LockError: naming the first difference, and how many more there are.
        """
        if entry.distribution in (HOST, REGISTERED):
            return
        installed = list(installed)
        if trouble := self.trouble(entry, installed):
            raise LockError(trouble)
        if entry.distribution not in self._guards:
            self._guards[entry.distribution] = made = self._guard(entry.distribution, installed)
            guard(made)

    def _named(self, distribution: str, installed: Iterable[Entry]) -> list[Entry]:
        return [
            e for e in installed
            if e.distribution == distribution and self.components.get((e.kind, e.name)) == distribution
        ]  # fmt: skip

    def _guard(self, distribution: str, installed: Iterable[Entry]) -> Guard:
        entries, locked = self._named(distribution, installed), self.distributions[distribution].files
        files = {os.path.realpath(file): locked[path] for path, file in covered(entries).items()}
        return Guard(distribution, self.path, files, frozenset(map(top, entries)))

    def _differences(self, distribution: str, installed: Iterable[Entry]) -> list[str]:
        entries = self._named(distribution, installed)
        if not entries:
            return []
        where = origin(entry := entries[0])
        locked = self.distributions[distribution]
        if entry.version != locked.version:
            return [f"{where}: the lock {self.path} was made for version {locked.version}; {self.remedy}"]
        try:
            found = fingerprint(entries)
        except LockError as error:
            return [str(error)]
        told: list[str] = []
        for path in sorted(locked.files.keys() | found.keys()):
            expected, actual = locked.files.get(path, "no such file"), found.get(path, "no such file")
            if expected != actual:
                told.append(
                    f"{where}: file {path} is not what the lock {self.path} says: expected {expected}, "
                    f"found {actual}; {self.remedy}"
                )
        return told


def make(path: str | os.PathLike[str], entries: Iterable[Entry]) -> Lock:
    """The lock of these entries as they are installed now; genmode's own are left out. Imports nothing.

    Raises:
        LockError: a module is not a file on the disk.
    """
    by_distribution: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.distribution != HOST:
            by_distribution.setdefault(entry.distribution, []).append(entry)
    components = {(entry.kind, entry.name): name for name, some in by_distribution.items() for entry in some}
    distributions = {n: Locked(some[0].version, fingerprint(some)) for n, some in sorted(by_distribution.items())}
    return Lock(os.path.abspath(path), components, distributions)


def _key(name: str) -> tuple[str, str]:
    kind, colon, bare = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r} is not kind:name")
    return kind, bare
