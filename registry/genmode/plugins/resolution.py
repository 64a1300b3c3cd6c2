"""Candidates: which of several distributions provides a name, and the state of each entry.

A candidate is an entry with what is known of loading it. A slot holds all candidates of one kind and name and settles
which one is in force: the one that `prefer` picks, else genmode's own, else the only one that no setting forbids, else
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..contract.kinds import Kind
from ..errors import (
    ConflictError,
    DisabledError,
    GenmodeError,
    ParameterError,
    PluginLoadError,
    UnknownComponentError,
)
from .discovery import Entry, Fault, Scan
from .identity import HOST, REGISTERED
from .loading import describe, origin, source_file
from .settings import Settings, hint

if TYPE_CHECKING:
    from ..contract.component import Component
    from .hooks import Relay
    from .lock import Lock

State = Literal["discovered", "loaded", "registered", "disabled", "conflict", "broken"]
Key = tuple[str, str]
"""Kind and name."""


class ComponentInfo(NamedTuple):
    """What is known of one installed component.

    Attributes:
        kind, name: what it is asked for by.
        distribution, version: who provides it; `registered` for what the program registered itself.
        value: the object, as `module:attribute`.
        path: the folder of the distribution's metadata.
        state: discovered, loaded, registered, disabled (by a setting), conflict (with another
            distribution), or broken (it was asked for and could not be loaded).
        reason: why it is disabled, in conflict or broken.
        file: the source file, once loaded.
        seconds: how long its import took, once imported.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    path: str
    state: State
    reason: str = ""
    file: str | None = None
    seconds: float | None = None

    @property
    def origin(self) -> str:
        """Who provides it, for messages: `dist 1.0 (file)`."""
        return origin(self.entry, self.file)

    @property
    def entry(self) -> Entry:
        """The line of `entry_points.txt`, or what stands for it, that it was made of."""
        return Entry(self.kind, self.name, self.distribution, self.version, self.value, self.path)


class Candidate:
    """An entry; `found` is its class or hook plugin once that is loaded, `error` why it cannot be."""

    def __init__(self, entry: Entry, found: Any = None) -> None:
        self.entry = entry
        self.found = found
        self.error: PluginLoadError | None = None
        self.seconds: float | None = None


class Slot:
    """All candidates of one kind and name.

    Attributes:
        own: whether genmode itself offers the name.
        able: the candidates that no setting forbids.
        chosen: the candidate in force, or None.
        rivals: the able candidates that no setting decides on.
        unlocked: the candidates that the lock alone forbids, and why.
    """

    def __init__(
        self,
        candidates: list[Candidate],
        settings: Settings,
        lock: Lock | None = None,
        unclear: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.candidates = candidates
        self.kind, self.name = candidates[0].entry.kind, candidates[0].entry.name
        self.own = any(c.entry.distribution == HOST for c in candidates)
        self._refusals = {c: why for c in candidates if (why := settings.refusal(c.entry, unclear)) is not None}
        self.unlocked: dict[Candidate, str] = {}
        if lock is not None:
            permitted = [c for c in candidates if c not in self._refusals]
            self.unlocked = {c: why for c in permitted if (why := lock.refusal(c.entry)) is not None}
            self._refusals |= self.unlocked
        self.able = able = [c for c in candidates if c not in self._refusals]
        wanted = settings.preferred(self.kind, self.name)
        picked = next((c for c in able if c.entry.distribution == wanted), None)
        own = next((c for c in able if c.entry.distribution == HOST), None)
        self.chosen = picked or own or (able[0] if len(able) == 1 else None)
        self.rivals = [] if picked or len(able) == 1 else [c for c in able if c is not self.chosen]
        if picked:
            self._refusals |= {c: f"the setting `prefer` picks {wanted}" for c in able if c is not picked}

    def choose(self) -> Candidate:
        """The candidate in force; ConflictError or DisabledError if there is none."""
        if self.chosen is not None:
            return self.chosen
        if self.rivals:
            raise ConflictError(self.conflict())
        candidate = self.candidates[0]
        raise DisabledError(f"{describe(candidate.entry)} is disabled: {self._refusals[candidate]}")

    def conflict(self) -> str:
        """The conflict in words, with the way out."""
        sides = ([self.chosen] if self.chosen else []) + self.rivals
        who = " and by ".join(origin(c.entry) for c in sides)
        choices = " or ".join(sorted({repr(c.entry.distribution) for c in sides}))
        kept = "; genmode's own stays in force" if self.chosen else ""
        return (
            f"{Kind(self.kind).noun} {self.name!r} is provided by {who}{kept}. To choose, set "
            f"genmode.configure(prefer={{{self.name!r}: DISTRIBUTION}}) or "
            f"GENMODE_PREFER={self.name}=DISTRIBUTION, where DISTRIBUTION is {choices}"
        )

    def info(self, candidate: Candidate) -> ComponentInfo:
        """What is known of one of the candidates."""
        state: State
        state, reason = "discovered", ""
        if candidate in self.rivals:
            state, reason = "conflict", self.conflict()
        elif candidate in self._refusals:
            state, reason = "disabled", self._refusals[candidate]
        elif candidate.error is not None:
            state, reason = "broken", str(candidate.error)
        elif candidate.found is not None:
            state = "registered" if candidate.entry.distribution == REGISTERED else "loaded"
        entry = candidate.entry
        return ComponentInfo(
            kind=entry.kind,
            name=entry.name,
            distribution=entry.distribution,
            version=entry.version,
            value=entry.value,
            path=entry.path,
            state=state,
            reason=reason,
            file=None if candidate.found is None else source_file(candidate.found),
            seconds=candidate.seconds,
        )

    def faults(self) -> list[Fault]:
        """The conflict, once, and what is broken."""
        found = [(self.rivals[0], self.conflict())] if self.rivals else []
        found += [(c, str(c.error)) for c in self.candidates if c.error is not None]
        return [
            Fault(c.entry.distribution, c.entry.version, self.name, why, c.entry.path, self.kind) for c, why in found
        ]


class Index:
    """One scan under one set of settings, and what is derived of them.

    Attributes:
        slots: sorted by kind and name.
        fields: key -> components that have it, once they are loaded; by whether third parties are in it.
        own: kind -> the components in force under names of genmode's own, once they are loaded.
        providers: loaded class -> where it comes from, for those that were asked for.
        relay: the hook plugins, once they are loaded.
        lock: the lock in force, or None.
        unclear: (setting, pattern) -> a sentence, for patterns that trust nothing since they do not say whom.
    """

    def __init__(
        self, scan: Scan, settings: Settings, slots: Mapping[Key, Slot], lock: Lock | None,
        unclear: Mapping[tuple[str, str], str],
    ) -> None:  # fmt: skip
        self.scan = scan
        self.settings = settings
        self.slots = slots
        self.lock = lock
        self.fields: dict[bool, dict[str, list[Key]]] = {}
        self.own: dict[str, tuple[type[Component], ...]] = {}
        self.providers: dict[type, tuple[Slot, Candidate]] = {}
        self.relay: Relay | None = None
        self.unclear = unclear


def arrange(scan: Scan, candidates: Iterable[Candidate], settings: Settings, lock: Lock | None = None) -> Index:
    """Settle every name."""
    by_key: dict[Key, list[Candidate]] = {}
    for candidate in candidates:
        by_key.setdefault((candidate.entry.kind, candidate.entry.name), []).append(candidate)
    entries = [candidate.entry for some in by_key.values() for candidate in some]
    unclear = settings.unclear(entries, scan.names, scan.shadowed)
    slots = {key: Slot(by_key[key], settings, lock, unclear) for key in sorted(by_key)}
    return Index(scan, settings, slots, lock, unclear)


def shared_key(key: str, infos: Iterable[ComponentInfo]) -> str:
    """The message where components of several distributions have one key."""
    infos = sorted(infos, key=lambda info: (info.distribution, info.kind, info.name))
    who = " and of ".join(f"{Kind(i.kind).noun} {i.name!r} of {i.origin}" for i in infos)
    choices = " or ".join(sorted({repr(i.distribution) for i in infos}))
    return (
        f"{key!r} is a parameter of {who}. Name the component that is meant in the call, or set "
        f"genmode.configure(prefer={{'parameters:{key}': DISTRIBUTION}}), where DISTRIBUTION is {choices}"
    )


def hiding(entry: Entry, scan: Scan) -> str:
    """Why an entry of `scan.shadowed` is not to be had."""
    return (
        f"{entry.kind}:{entry.name} of {entry.distribution} {entry.version} ({entry.path}) is hidden by another "
        f"{entry.distribution} ({scan.hiders.get(entry.distribution, 'earlier on sys.path')}); remove the one that "
        "is out of date"
    )


def unknown(kind: str, name: str, index: Index) -> GenmodeError:
    """Why a name leads nowhere: broken metadata, another kind, hidden, misspelt, or not installed."""
    noun = Kind(kind).noun
    for fault in index.scan.faults:
        if (fault.kind, fault.name) == (kind, name):
            return PluginLoadError(f"{noun} {name!r} cannot be loaded: {fault}")
    ways: list[str] = []
    names = [k[1] for k in index.slots if k[0] == kind]
    elsewhere = [k[0] for k in index.slots if k[1] == name]
    hidden = [e for e in index.scan.shadowed if (e.kind, e.name) == (kind, name)]
    if elsewhere:
        ways.append(f"there is a {' and a '.join(Kind(k).noun for k in elsewhere)} of that name")
    ways += [hiding(e, index.scan) for e in hidden]
    if not ways:
        ways.append("`genmode list` shows what is installed")
        ways.append("if a plugin provides it, install that first: pip install DISTRIBUTION")
    return UnknownComponentError(f"no {noun} is named {name!r}{hint(name, names)} ({'; '.join(ways)})")


def kind_of_name(name: str, keys: Iterable[Key]) -> str:
    """The kind of the component with this name.

    Args:
        name: the name.
        keys: kind and name of all that is installed.

    Raises:
        UnknownComponentError: nothing has it.
        ParameterError: components of several kinds have it, other than a strategy and the drafter that it runs.
    """
    keys = list(keys)
    kinds = sorted({kind for kind, found in keys if found == name})
    if not kinds:
        near = hint(name, [found for _, found in keys])
        raise UnknownComponentError(f"no component is named {name!r}{near or ';'} `genmode list` shows all")
    if Kind.STRATEGIES in kinds and Kind.DRAFTERS in kinds:
        kinds.remove(Kind.DRAFTERS)  # a drafter that has a strategy of its name is asked for by its kind
    if len(kinds) > 1:
        raise ParameterError(f"{name!r} is in {' and '.join(kinds)}; say which with --kind")
    return kinds[0]
