"""Which files of a distribution can be imported or read as its own, and their hashes.

Hashed (SHA-256) are `METADATA` and `entry_points.txt`; every other file that RECORD lists, but for bytecode, scripts
outside the folder of the installation and what the installer notes for itself; every importable file of the folders in
which RECORD lists one; and every importable file of the outermost package that an entry point names, in each folder that
this package consists of: one without `__init__.py` can lie in several, and whoever adds one more adds modules to it. So a
file that was added is seen as well, be it source, an extension module, or bytecode in place of source.

An editable installation lists none of its modules; they are found through the entry points, with the finders of the
import system, which run nothing of the package.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, all_suffixes

from ..errors import LockError
from .entries import Entry
from .loading import describe, origin
from .locked_imports import Finder

METADATA = ("METADATA", "PKG-INFO", "entry_points.txt")


def module_of(entry: Entry) -> str:
    """The module that the entry names an object of."""
    return entry.value.partition("[")[0].partition(":")[0].strip()


def top(entry: Entry) -> str:
    """The outermost package of that module."""
    return module_of(entry).partition(".")[0]


def fingerprint(entries: Iterable[Entry]) -> dict[str, str]:
    """Path -> hash of every file that counts of the one distribution that has these entries.

    Raises:
        LockError: a module of theirs is not a file on disk, or a file cannot be read.
    """
    entries = list(entries)
    try:
        return {path: digest(file) for path, file in sorted(covered(entries).items())}
    except OSError as error:
        raise LockError(f"{origin(entries[0])}: a file that the lock covers cannot be read: {error}") from error


def covered(entries: Iterable[Entry]) -> dict[str, str]:
    """Path -> file, as `fingerprint` has them."""
    entries = list(entries)
    files = dict(_recorded(entries[0].path))
    # Where the import system finds a module counts, also where that is not what RECORD lists.
    for entry in entries:
        files |= _modules(entry)
    return files


def digest(file: str) -> str:
    """The hash of a file, as a lock has it."""
    made = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            made.update(block)
    return f"sha256:{made.hexdigest()}"


def _recorded(metadata: str) -> Iterator[tuple[str, str]]:
    """(path, file) of the metadata, of what RECORD lists, and of what else can be imported of its packages."""
    import csv

    root, folder = os.path.split(metadata)
    for name in METADATA:
        if os.path.isfile(os.path.join(metadata, name)):
            yield f"{folder}/{name}", os.path.join(metadata, name)
    try:
        with open(os.path.join(metadata, "RECORD"), encoding="utf-8", newline="") as file:
            listed = [row[0].replace("\\", "/") for row in csv.reader(file) if row]
    except (FileNotFoundError, NotADirectoryError):
        return
    packages = {path.rpartition("/")[0] for path in listed if path.endswith(tuple(all_suffixes())) and _is_own(path)}
    packages -= {""}  # which others share
    for path in listed:
        if _is_own(path) and os.path.isfile(os.path.join(root, path)):
            yield path, os.path.join(root, path)
    for package in sorted(packages):
        if package.rpartition("/")[0] not in packages:
            yield from _importable(os.path.join(root, package), package)


def _is_own(path: str) -> bool:
    """Whether a path of RECORD is a file of the distribution's own, in the folder of the installation."""
    parts = path.split("/")
    inside = not os.path.isabs(path) and ".." not in parts and "__pycache__" not in parts
    return inside and not parts[0].endswith((".dist-info", ".egg-info"))


def _modules(entry: Entry) -> dict[str, str]:
    """Path -> file of the entry's module, and of all that its outermost package holds."""
    files: dict[str, str] = {}
    inside: Iterable[str] | None = None
    parts = module_of(entry).split(".")
    for depth in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:depth]), inside)
        if spec is None:
            return files  # an entry to nothing, which cannot be imported either
        inside = spec.submodule_search_locations
        if spec.origin is None and inside is not None:  # a namespace package, in as many folders as there are
            for place in list(inside) if depth == 1 else ():
                files = (
                    dict(_importable(place, parts[0])) | files
                )  # of one name in several folders, the first is imported
            continue
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
        spec = None if isinstance(finder, Finder) else finder.find_spec(name, None if inside is None else list(inside))
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
