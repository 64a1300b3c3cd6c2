"""The inventory: one scan of what is installed, the settings in force, and what was loaded so far.

It scans once; `refresh` drops the scan. No lock is held while a plugin is imported, so that a plugin that
registers components while it is imported cannot lock up two threads.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..contract.kinds import Kind
from ..errors import LockError, PluginLoadError, UnknownComponentError
from . import loading
from .discovery import Entry, Scan, installed, scan
from .fingerprint import top
from .locked_imports import release
from .resolution import Candidate, Index, Slot, arrange, unknown
from .settings import Settings, hint

if TYPE_CHECKING:
    from .lock import Lock

Names = Iterable[str] | str


class Inventory:
    """What a registry chooses from.

    Args:
        source: distributions or entries to see; None for the distributions of this environment.
        settings: None for those of the environment variables.
    """

    def __init__(self, source: Iterable[Any] | None = None, settings: Settings | None = None) -> None:
        self._source = None if source is None else tuple(source)
        self._settings = settings
        self._registered: dict[Entry, Candidate] = {}
        self._lock = threading.RLock()
        self._current: Index | None = None
        self._warned: set[str] = set()

    @property
    def settings(self) -> Settings:
        """The settings in force; ParameterError if an environment variable cannot be understood."""
        current = self._current
        return current.settings if current is not None else self._settings or Settings.from_environment()

    def configure(
        self,
        *,
        allow: Names | None = None,
        block: Names | None = None,
        none: bool | None = None,
        prefer: Mapping[str, str] | None = None,
        hooks: Names | None = None,
        lock: str | os.PathLike[str] | None = None,
    ) -> Settings:
        """Change the settings that are given (see `Settings`), refresh, and warn of names that match nothing.

        Raises:
            ParameterError: a setting has the wrong type.
            LockError: the lock cannot be read.
        """
        given = {"allow": allow, "block": block, "none": none, "prefer": prefer, "hooks": hooks, "lock": lock}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        with self._lock:
            self._settings = replace(self.settings, **changes)
            self.refresh()
        return self._index().settings

    def refresh(self) -> None:
        """Forget the scan and every failure; what the program registered stays.

        Packages installed since are found. A module that is imported already stays what it is.
        """
        importlib.invalidate_caches()
        with self._lock:
            self._current = None
            self._warned.clear()

    def _index(self) -> Index:
        if (index := self._current) is not None:
            return index
        with self._lock:
            if self._current is not None:
                return self._current
            index = self._arrange(self._scan(), None)
        at_fault = {fault.distribution for fault in index.scan.faults} | index.scan.names
        sentences = index.settings.unknown([*index.scan.entries, *self._registered], at_fault)
        sentences += [
            why for (setting, _), why in index.unclear.items() if setting == "allow"
        ]  # of `hooks` in each call
        for sentence in [*sentences, *(index.lock.missing(index.scan.entries) if index.lock else ())]:
            warnings.warn(sentence, UserWarning, stacklevel=3)
        return index

    def _scan(self) -> Scan:
        if self._source is None:
            return scan(installed())
        found = scan(item for item in self._source if not isinstance(item, Entry))
        entries = {item for item in self._source if isinstance(item, Entry)}
        return found._replace(entries=tuple(sorted(entries.union(found.entries))))

    def _arrange(self, found: Scan, former: Index | None) -> Index:
        known = {c.entry: c for s in former.slots.values() for c in s.candidates} if former else {}
        candidates = [known.get(entry) or Candidate(entry) for entry in found.entries]
        settings = self.settings
        lock: Lock | None = None
        if settings.lock:
            from .lock import Lock

            lock = former.lock if former is not None else Lock.read(settings.lock)
        self._current = arrange(found, [*candidates, *self._registered.values()], settings, lock)
        return self._current

    def _choose(self, kind: str, name: str) -> tuple[Slot, Candidate]:
        index = self._index()
        slot = index.slots.get((known_kind(kind), name))
        if slot is None:
            raise unknown(kind, name, index)
        chosen = slot.choose()
        if slot.rivals:
            self._warn(f"{kind}:{name}", slot.conflict())
        return slot, chosen

    def _load(self, candidate: Candidate) -> Any:
        if candidate.found is None and candidate.error is None:
            start = time.perf_counter()
            found: Any = None
            error: PluginLoadError | None = None
            try:
                if (index := self._index()).lock is not None:
                    index.lock.verify(candidate.entry, index.scan.entries)
                else:
                    release(top(candidate.entry))
                found = loading.load(candidate.entry)
            except PluginLoadError as failure:
                error = failure
            self._settle(candidate, found, error, time.perf_counter() - start)
        if candidate.error is not None:
            raise type(candidate.error)(str(candidate.error)) from candidate.error.__cause__
        return candidate.found

    def _settle(self, candidate: Candidate, found: Any, error: PluginLoadError | None, seconds: float) -> None:
        with self._lock:
            if candidate.found is not None or candidate.error is not None:
                return  # another thread was faster, and its result is in use
            if error is None and candidate.entry.kind != Kind.HOOKS:
                found = loading.named(found, candidate.entry.name)
            candidate.found, candidate.error, candidate.seconds = found, error, seconds

    def _attempt(self, candidate: Candidate) -> Any:
        """Load where a call can do without; a broken plugin is warned of once and gives None."""
        try:
            return self._load(candidate)
        except PluginLoadError as error:
            if isinstance(error, LockError) and candidate.entry.kind == Kind.HOOKS:
                raise
            self._warn(candidate.entry.distribution, str(error))
            return None

    def _warn(self, subject: str, message: str) -> None:
        with self._lock:
            new = subject not in self._warned
            self._warned.add(subject)
        if new:
            warnings.warn(message, RuntimeWarning, stacklevel=4)


def known_kind(kind: str) -> Kind:
    """The kind of this name; raises UnknownComponentError where there is none."""
    try:
        return Kind(kind)
    except ValueError:
        kinds = [one.value for one in Kind]
        near = f"{hint(kind, kinds)} (there are {', '.join(kinds)})"
        raise UnknownComponentError(f"there is no kind {kind!r}{near}") from None
