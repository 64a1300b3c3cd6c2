"""The registry: every component by kind and name, found by its metadata and imported when first asked for.

Of several distributions that offer one name, `prefer` picks one. Without it, genmode's own stays in force;
of others none is, and asking for the name is an error. A key belongs to the component that the call names,
else to genmode's own and what the program registered, else to the one distribution that declares it. So
installing a plugin never changes what a call means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ..contract.kinds import COMPONENT_KINDS, Kind
from ..errors import ConflictError, LockError
from . import loading
from .discovery import Entry, Fault
from .identity import HOST, REGISTERED
from .inventory import Inventory, Names, known_kind
from .lookalikes import lookalikes
from .resolution import Candidate, Key, Slot, arrange, hiding, kind_of_name, shared_key
from .resolution import ComponentInfo as ComponentInfo
from .settings import Settings

if TYPE_CHECKING:
    from ..contract import Component, Drafter, LogitsProcessor, StoppingCriterion, Strategy, Verification, Watermarker
    from .hooks import Relay
    from .lock import Lock

T = TypeVar("T")


class Registry(Inventory):
    """Components by kind and name. Every method may be called from several threads.

    Args:
        source: distributions or entries to see; None for the distributions of this environment.
        settings: None for those of the environment variables.
    """

    def components(self, kind: str | None = None) -> tuple[ComponentInfo, ...]:
        """Everything installed, sorted by name within its kind; nothing is imported.

        Args:
            kind: one of `Kind`; None for all but hooks.

        Raises:
            UnknownComponentError: there is no such kind.
        """
        kinds = COMPONENT_KINDS if kind is None else (known_kind(kind),)
        slots = self._index().slots.values()
        return tuple(slot.info(c) for k in kinds for slot in slots if slot.kind == k for c in slot.candidates)

    def has(self, kind: str, name: str) -> bool:
        """Whether anything of this kind and name is installed or registered, usable or not."""
        return (kind, name) in self._index().slots

    def kind_of_name(self, name: str) -> str:
        """The kind of the component with this name, imported or not.

        Raises:
            UnknownComponentError: nothing has it. ParameterError: components of several kinds have it.
        """
        return kind_of_name(name, self._index().slots)

    def info(self, kind: str, name: str) -> ComponentInfo:
        """The component that `get` would give, not imported; raises as `get` does short of loading it."""
        slot, candidate = self._choose(kind, name)
        return slot.info(candidate)

    @overload
    def get(self, kind: Literal["strategies", Kind.STRATEGIES], name: str) -> type[Strategy]: ...
    @overload
    def get(self, kind: Literal["processors", Kind.PROCESSORS], name: str) -> type[LogitsProcessor]: ...
    @overload
    def get(self, kind: Literal["criteria", Kind.CRITERIA], name: str) -> type[StoppingCriterion]: ...
    @overload
    def get(self, kind: Literal["watermarkers", Kind.WATERMARKERS], name: str) -> type[Watermarker]: ...
    @overload
    def get(self, kind: Literal["drafters", Kind.DRAFTERS], name: str) -> type[Drafter]: ...
    @overload
    def get(self, kind: Literal["verifications", Kind.VERIFICATIONS], name: str) -> type[Verification]: ...
    @overload
    def get(self, kind: str, name: str) -> type[Component]: ...
    def get(self, kind: str, name: str) -> Any:
        """The component's class, imported if need be.

        Raises:
            UnknownComponentError: nothing is installed or registered under this name.
            ConflictError: two distributions provide it and no setting picks one.
            DisabledError: a setting forbids to load it.
            PluginLoadError: it could not be imported, with the cause, or is no such component.
            ContractVersionError: it was written for another contract.
            LockError: what is installed is not what the lock says.
        """
        return self._load(self._choose(kind, name)[1])

    def provider(self, component: object) -> ComponentInfo | None:
        """Where a component or its class comes from; None if not from this registry."""
        wanted = component if isinstance(component, type) else type(component)
        index = self._index()
        if wanted not in index.providers:
            for slot in index.slots.values():
                for candidate in slot.candidates:
                    if candidate.found is wanted:
                        index.providers[wanted] = slot, candidate
        placed = index.providers.get(wanted)
        return None if placed is None else placed[0].info(placed[1])

    def origin(self, component: object) -> str:
        """Who provides a component or its class, for messages; empty if not from this registry."""
        info = self.provider(component)
        return "" if info is None else info.origin

    def own(self, kind: Kind) -> tuple[type[Component], ...]:
        """The components of a kind in force under names of genmode's own, imported.

        These are genmode's, and what `prefer` has put in the place of one of them. One that cannot be loaded is
        warned of once and left out.
        """
        index = self._index()
        if kind not in index.own:
            slots = [slot for slot in index.slots.values() if slot.kind == kind and slot.own]
            loaded = [self._attempt(slot.chosen) for slot in slots if slot.chosen is not None]
            index.own[kind] = tuple(one for one in loaded if one is not None)
        return index.own[kind]

    @overload
    def register(self, component: T, *, kind: str | None = None, name: str | None = None) -> T: ...
    @overload
    def register(self, *, kind: str | None = None, name: str | None = None) -> Callable[[T], T]: ...
    def register(self, component: Any = None, *, kind: str | None = None, name: str | None = None) -> Any:
        """Register a component of this program, as a call or a decorator.

        The same definition again, as when a cell of a notebook is run twice, replaces the former.

        Args:
            component: a class derived from the base of a kind; or a hook plugin, with kind="hooks".
            kind: where the base class does not tell.
            name: the public name; by default the class's own.

        Raises:
            PluginLoadError: it is no component of that kind. ContractVersionError: of another contract.
            ConflictError: the name is taken, and `prefer` does not say `registered`.
            LockError: the lock says that a distribution provides it.
        """
        if component is None:

            def decorate(found: T) -> T:
                return self.register(found, kind=kind, name=name)

            return decorate
        entry = loading.entry_of(component, kind if kind is None else known_kind(kind), name)
        loading.check(component, entry)
        with self._lock:
            index = self._index()
            taken = index.slots.get((entry.kind, entry.name))
            others = [c for c in taken.candidates if c.entry != entry] if taken is not None else []
            for other in others:
                if other.entry.distribution == REGISTERED:
                    raise ConflictError(
                        f"{loading.describe(entry)}: the program has registered {other.entry.value!r} under "
                        "that name already; give one of them another name"
                    )
            found = component if entry.kind == Kind.HOOKS else loading.named(component, entry.name)
            candidate = Candidate(entry, found)
            new = Slot([*others, candidate], index.settings, index.lock, index.unclear)
            if new.rivals:
                raise ConflictError(new.conflict())
            if candidate in new.unlocked:
                raise LockError(f"{loading.describe(entry)} cannot be registered: {new.unlocked[candidate]}")
            self._registered[entry] = candidate
            self._arrange(index.scan, index)
        return component

    def owners(self, key: str, named: Iterable[Key] = (), *, shared: bool = False) -> list[ComponentInfo]:
        """The enabled components whose `Params` has this field, all of one distribution.

        Third parties' plugins are imported only for a key that neither a named component, nor one of
        genmode's own, nor one that the program registered has.

        Args:
            key: a key of the generation config.
            named: (kind, name) of components that the call names; those that have the key own it alone.
            shared: True for a key of transformers' own, which any number of components may read; gives
                them all, of every distribution.

        Raises:
            ConflictError: components of two distributions have it, and no setting picks one.
        """
        mine = [(kind, name) for kind, name in named if key in self.get(kind, name).Params.model_fields]
        if mine:
            return [self.info(*pair) for pair in mine]
        wanted = self.settings.preferred("parameters", key)
        near = [] if shared or wanted not in (None, HOST, REGISTERED) else self._fields(False).get(key, [])
        found = [self.info(*pair) for pair in near or self._fields(True).get(key, [])]
        providers = {info.distribution for info in found}
        if wanted in providers:
            return [info for info in found if info.distribution == wanted]
        if len(providers) > 1 and not shared:
            raise ConflictError(shared_key(key, found))
        return found

    def parameter_keys(self) -> frozenset[str]:
        """Every key that a component can be given; imports every enabled plugin."""
        return frozenset(self._fields(True))

    def hooks(self) -> Relay:
        """The hook plugins that are switched on; broken ones are warned of and left out.

        Raises:
            ConflictError: two distributions offer a hook plugin of a name that is switched on, or may be meant by
                a name in the setting `hooks`.
            LockError: one that is switched on is not in the lock, or not as the lock says; calls that were to
                be watched by it are not run without it.
        """
        index = self._index()
        if index.relay is None:
            from .hooks import Relay

            for (setting, _), why in index.unclear.items():
                if setting == "hooks":
                    raise ConflictError(why)
            for slot in index.slots.values():
                for candidate, why in slot.unlocked.items() if slot.kind == Kind.HOOKS else ():
                    raise LockError(f"{loading.describe(candidate.entry)} is switched on, but {why}")
            chosen = [slot.choose() for slot in index.slots.values() if slot.kind == Kind.HOOKS and slot.able]
            plugins = [(loading.describe(c.entry), self._attempt(c)) for c in chosen]
            index.relay = Relay([(origin, plugin) for origin, plugin in plugins if plugin is not None])
        return index.relay

    def faults(self) -> tuple[Fault, ...]:
        """What is wrong with installed plugins, each once, as far as is known without importing more."""
        index = self._index()
        return tuple(sorted([*index.scan.faults, *(f for s in index.slots.values() for f in s.faults())]))

    def lock(self, path: str | os.PathLike[str]) -> Lock:
        """A lock of what the settings would load without one, as it is installed now, to be written to `path`.

        Raises:
            ConflictError: two distributions provide one name and no setting picks one.
            LockError: a module is not a file on the disk.
        """
        from .lock import make

        found, settings = self._scan(), self._settings or Settings.from_environment()
        slots = arrange(found, map(Candidate, found.entries), replace(settings, lock="")).slots.values()
        return make(path, [slot.choose().entry for slot in slots if slot.able])

    def unlocked(self, lock: Lock | None = None) -> list[str]:
        """Every difference between the lock (None: that in force) and what is installed; imports nothing."""
        lock = self._index().lock if lock is None else lock
        return lock.differences(self._scan().entries) if lock is not None else []

    def refused(self, lock: Lock) -> list[str]:
        """One sentence for each component that the settings would load and this lock would not; imports nothing."""
        found, settings = self._scan(), self._settings or Settings.from_environment()
        slots = arrange(found, map(Candidate, found.entries), replace(settings, lock="")).slots.values()
        told: list[str] = []
        for entry in (candidate.entry for slot in slots for candidate in slot.able):
            reason = lock.refusal(entry)
            if reason is None and entry.distribution != HOST:
                reason = lock.trouble(entry, found.entries) or None
            if reason is not None:
                told.append(f"{loading.describe(entry)}: {reason}")
        return told

    def suspects(self) -> list[str]:
        """One sentence for each distribution or component that is, or may be taken for, what it is not; imports nothing."""
        found = self._index().scan
        return [*map(str, found.impostors), *lookalikes(found.entries)]

    def shadowed(self) -> dict[Entry, str]:
        """Entries of distributions that another one of the same name hides, with the reason in words."""
        found = self._index().scan
        return {entry: hiding(entry, found) for entry in found.shadowed}

    def shared_keys(self) -> list[str]:
        """One sentence for each key that components of several distributions declare; imports every enabled plugin."""
        told: list[str] = []
        for key in sorted(self._fields(True)):
            try:
                self.owners(key)
            except ConflictError as error:
                told.append(str(error))
        return told

    def _fields(self, every: bool) -> dict[str, list[Key]]:
        """Key -> components that have it; of genmode and this program alone unless `every`."""
        index = self._index()
        fields = index.fields.get(every)
        if fields is None:
            fields = {}
            for pair, slot in index.slots.items():
                candidate = slot.chosen
                if candidate is None or slot.kind == Kind.HOOKS:
                    continue
                if every or candidate.entry.distribution in (HOST, REGISTERED):
                    component = self._attempt(candidate)
                    for key in component.Params.model_fields if component is not None else ():
                        fields.setdefault(key, []).append(pair)
            index.fields[every] = fields
        return fields


_default = Registry()


def registry() -> Registry:
    """The registry in use: that of this environment, unless `use` says otherwise."""
    return _default


@contextmanager
def use(other: Registry) -> Generator[Registry, None, None]:
    """Use another registry for a while, in all threads; for tests that must not see the environment."""
    global _default
    former, _default = _default, other
    try:
        yield other
    finally:
        _default = former


def components(kind: str | None = None) -> tuple[ComponentInfo, ...]:
    """`Registry.components` of the registry in use."""
    return _default.components(kind)


def refresh() -> None:
    """`Registry.refresh` of the registry in use."""
    _default.refresh()


def configure(
    *,
    allow: Names | None = None,
    block: Names | None = None,
    none: bool | None = None,
    prefer: Mapping[str, str] | None = None,
    hooks: Names | None = None,
    lock: str | os.PathLike[str] | None = None,
) -> Settings:
    """`Registry.configure` of the registry in use."""
    return _default.configure(allow=allow, block=block, none=none, prefer=prefer, hooks=hooks, lock=lock)


@overload
def register(component: T, *, kind: str | None = None, name: str | None = None) -> T: ...
@overload
def register(*, kind: str | None = None, name: str | None = None) -> Callable[[T], T]: ...
def register(component: Any = None, *, kind: str | None = None, name: str | None = None) -> Any:
    """`Registry.register` of the registry in use."""
    return _default.register(component, kind=kind, name=name)
