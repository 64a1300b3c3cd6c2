"""What is imported of a locked distribution is a file that the lock names, with the content that it names.

A lock is held against the files before anything of a distribution is imported; this is what holds it from then on, for
modules that are imported much later, for files that are changed in between, and for bytecode: a `.pyc` in `__pycache__` is
passed over, and the source is compiled, whose hash has just been compared. A finder in front of the others does it, for
the packages of locked distributions alone.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NoReturn

from ..errors import LockError


class Guard:
    """One distribution of a lock that is in force, for as long as the lock is referred to.

    Args:
        distribution: its name.
        lock: the file of the lock.
        files: real path -> hash, as the lock has it.
        packages: outermost packages of which nothing but these files may be imported.
    """

    def __init__(self, distribution: str, lock: str, files: Mapping[str, str], packages: frozenset[str]) -> None:
        self.distribution, self.lock, self.files, self.packages = distribution, lock, files, packages

    def check(self, name: str, file: str, content: bytes) -> None:
        """Refuse a module whose file is not as the lock says."""
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if found != self.files[os.path.realpath(file)]:
            self.refuse(name, file, "has changed since")

    def refuse(self, name: str, file: str | None, why: str) -> NoReturn:
        raise LockError(
            f"module {name} ({file}) of {self.distribution} {why} the lock {self.lock}; nothing of it is imported. Start the "
            f"program again, or review the package and run `genmode lock {self.lock}`",
            name=name,
        )


class _HashedSource(SourceFileLoader):
    """Compiles the source that the lock names, never what `__pycache__` has of it."""

    def __init__(self, name: str, path: str, held: Guard) -> None:
        super().__init__(name, path)
        self.held = held

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        self.held.check(fullname, self.path, source)
        code: CodeType = self.source_to_code(source, self.path)
        return code


class Finder(MetaPathFinder):
    """Finds modules of guarded packages as the finders behind it do, and holds them to their guard."""

    def __init__(self) -> None:
        self.guards: weakref.WeakValueDictionary[str, Guard] = weakref.WeakValueDictionary()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        held = self.guards.get(fullname.partition(".")[0])
        if held is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for one in others if (found := one.find_spec(fullname, path, target)) is not None), None)
        if spec is None or (spec.origin is None and spec.submodule_search_locations is not None):
            return spec  # not there, or a package without a file of its own
        if spec.origin is None or os.path.realpath(spec.origin) not in held.files:
            held.refuse(fullname, spec.origin, "is not among the files of")
        if type(spec.loader) is SourceFileLoader:
            spec.loader = _HashedSource(fullname, spec.origin, held)
        else:
            held.check(fullname, spec.origin, Path(spec.origin).read_bytes())
        return spec


_finder = Finder()
_placing = threading.Lock()


def guard(made: Guard) -> None:
    """Hold imports of its packages to it."""
    with _placing:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        for package in made.packages:
            _finder.guards[package] = made


def release(package: str) -> None:
    """Hold imports of a package no longer: it is loaded where no lock is in force."""
    _finder.guards.pop(package, None)
