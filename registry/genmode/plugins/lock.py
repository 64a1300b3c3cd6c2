"""The lock: which distribution provides which component, and what its files have to contain.

A lock is a JSON file that `genmode lock` writes. With the setting `lock` a third-party component is loaded
only if the lock names it, from the distribution, in the version and with the file contents that it names.
All of this is checked before anything of the distribution is imported, once for each distribution; a call
pays nothing for it. What differs is an error, never a warning.

Hashed (SHA-256) are, of each distribution: `METADATA` and `entry_points.txt`; every other file that RECORD
lists, but for bytecode, scripts outside the folder of the installation and what the installer notes for
itself; and every importable file of the packages that RECORD or an entry point names, so that a file that
was added is seen as well. An editable installation lists none of its modules; they are found through the
entry points, with the finders of the import system, which run nothing of the package.

Not covered: genmode itself with its built-in components (a check cannot vouch for the code that it is part
of), what the program registers, a distribution's dependencies, bytecode in `__pycache__`, and what runs
before a component is asked for: `.pth` files, `sitecustomize`, import hooks. See docs/security.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, all_suffixes
from typing import Any, NamedTuple

from ..atomic import write_text
from ..errors import LockError
from .discovery import Entry
from .identity import HOST, REGISTERED
from .loading import describe, origin

FORMAT = 1
_METADATA = ("METADATA", "PKG-INFO", "entry_points.txt")


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

    def verify(self, entry: Entry, installed: Iterable[Entry]) -> None:
        """Refuse an entry whose distribution differs from the lock; each is looked at once.

        Raises:
            LockError: naming the first difference, and how many more there are.
        """
        if entry.distribution in (HOST, REGISTERED):
            return
        if entry.distribution not in self._verified:
            told = self._differences(entry.distribution, installed)
            more = f" ({len(told) - 1} more differ; `genmode lock --check {self.path}` lists them)" * (len(told) > 1)
            self._verified[entry.distribution] = told[0] + more if told else ""
        if trouble := self._verified[entry.distribution]:
            raise LockError(trouble)

    def _differences(self, distribution: str, installed: Iterable[Entry]) -> list[str]:
        entries = [
            e for e in installed
            if e.distribution == distribution and self.components.get((e.kind, e.name)) == distribution
        ]  # fmt: skip
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


def fingerprint(entries: Iterable[Entry]) -> dict[str, str]:
    """Path -> hash of every file that counts of the one distribution that has these entries.

    Raises:
        LockError: a module of theirs is not a file on disk, or a file cannot be read.
    """
    entries = list(entries)
    files = dict(_recorded(entries[0].path))
    # Where the import system finds a module counts, also where that is not what RECORD lists.
    for entry in entries:
        files |= _modules(entry)
    try:
        return {path: _hash(file) for path, file in sorted(files.items())}
    except OSError as error:
        raise LockError(f"{origin(entries[0])}: a file that the lock covers cannot be read: {error}") from error


def _recorded(metadata: str) -> Iterator[tuple[str, str]]:
    """(path, file) of the metadata, of what RECORD lists, and of what else can be imported of its packages."""
    import csv

    root, folder = os.path.split(metadata)
    for name in _METADATA:
        if os.path.isfile(os.path.join(metadata, name)):
            yield f"{folder}/{name}", os.path.join(metadata, name)
    try:
        with open(os.path.join(metadata, "RECORD"), encoding="utf-8", newline="") as file:
            listed = [row[0].replace("\\", "/") for row in csv.reader(file) if row]
    except (FileNotFoundError, NotADirectoryError):
        return
    packages = {path.rpartition("/")[0] for path in listed if path.endswith("/__init__.py")}
    for path in listed:
        parts = path.split("/")
        ours = not os.path.isabs(path) and ".." not in parts and "__pycache__" not in parts
        if ours and not parts[0].endswith((".dist-info", ".egg-info")) and os.path.isfile(os.path.join(root, path)):
            yield path, os.path.join(root, path)
    for package in sorted(packages):
        if package.rpartition("/")[0] not in packages and ".." not in package.split("/"):
            yield from _importable(os.path.join(root, package), package)


def _modules(entry: Entry) -> dict[str, str]:
    """Path -> file of the entry's module, and of all that its outermost package holds."""
    name = entry.value.partition("[")[0].partition(":")[0].strip()
    files: dict[str, str] = {}
    inside: Iterable[str] | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:depth]), inside)
        if spec is None:
            return files  # an entry to nothing, which cannot be imported either
        inside = spec.submodule_search_locations
        if spec.origin is None and inside is not None:
            continue  # a namespace package, which holds nothing of its own
        if not spec.has_location or spec.origin is None or not os.path.isfile(spec.origin):
            raise LockError(
                f"{describe(entry)}: module {spec.name} is no file on the disk ({spec.origin}), so it cannot be "
                "locked; install the distribution as plain files"
            )
        path = "/".join(parts[:depth])
        if inside is None:
            files[path + os.path.splitext(spec.origin)[1]] = spec.origin
        elif not any(known.startswith(f"{path}/") for known in files):
            files[f"{path}/{os.path.basename(spec.origin)}"] = spec.origin
            for place in inside:
                files |= dict(_importable(place, path))
    return files


def _spec(name: str, inside: Iterable[str] | None) -> ModuleSpec | None:
    """Where the import system finds a module, as `importlib.util.find_spec` without importing parents."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__spec__", None) is not None:
        return loaded.__spec__
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None if inside is None else list(inside))
        if spec is not None:
            return spec
    return None


def _importable(folder: str, path: str, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """(path, file) of every file below the folder that an import could run, links followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    suffixes = tuple(all_suffixes())
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        if item.is_dir():
            if item.name != "__pycache__":
                yield from _importable(item.path, f"{path}/{item.name}", above | {real})
        elif item.name.endswith(suffixes):
            yield f"{path}/{item.name}", item.path


def _hash(file: str) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _key(name: str) -> tuple[str, str]:
    kind, colon, bare = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r} is not kind:name")
    return kind, bare
