"""Offers: which of several distributions provides a name, and what has become of each entry.

An offer is an entry with its fate. A slot holds all offers of one kind and name and settles which one is in
force: the one that `prefer` picks, else genmode's own, else the only one that no setting forbids, else none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .discovery import HOST, Entry, Fault, Scan
from .errors import ConflictError, DisabledError, GenmodeError, PluginLoadError, UnknownComponentError
from .loading import NOUNS, describe, home, source_file
from .settings import REGISTERED, Settings, hint

if TYPE_CHECKING:
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
        entry = Entry(self.kind, self.name, self.distribution, self.version, self.value, self.path)
        return home(entry, self.file)


class Offer:
    """An entry and what has become of it; `found` is the class or hook plugin once it is loaded."""

    def __init__(self, entry: Entry, found: Any = None) -> None:
        self.entry = entry
        self.found = found
        self.error: PluginLoadError | None = None
        self.seconds: float | None = None


class Slot:
    """All offers of one kind and name.

    Attributes:
        able: the offers that no setting forbids.
        chosen: the offer in force, or None.
        rivals: the able offers that no setting decides on.
        unlocked: the offers that the lock alone forbids, and why.
    """

    def __init__(self, offers: list[Offer], settings: Settings, lock: Lock | None = None) -> None:
        self.offers = offers
        self.kind, self.name = offers[0].entry.kind, offers[0].entry.name
        self._refusals = {o: why for o in offers if (why := settings.refusal(o.entry)) is not None}
        self.unlocked: dict[Offer, str] = {}
        if lock is not None:
            permitted = [o for o in offers if o not in self._refusals]
            self.unlocked = {o: why for o in permitted if (why := lock.refusal(o.entry)) is not None}
            self._refusals |= self.unlocked
        self.able = able = [o for o in offers if o not in self._refusals]
        wanted = settings.preferred(self.kind, self.name)
        picked = next((o for o in able if o.entry.distribution == wanted), None)
        own = next((o for o in able if o.entry.distribution == HOST), None)
        self.chosen = picked or own or (able[0] if len(able) == 1 else None)
        self.rivals = [] if picked or len(able) == 1 else [o for o in able if o is not self.chosen]
        if picked:
            self._refusals |= {o: f"the setting `prefer` picks {wanted}" for o in able if o is not picked}

    def choose(self) -> Offer:
        """The offer in force; ConflictError or DisabledError if there is none."""
        if self.chosen is not None:
            return self.chosen
        if self.rivals:
            raise ConflictError(self.conflict())
        offer = self.offers[0]
        raise DisabledError(f"{describe(offer.entry)} is disabled: {self._refusals[offer]}")

    def conflict(self) -> str:
        """The conflict in words, with the way out."""
        sides = ([self.chosen] if self.chosen else []) + self.rivals
        who = " and by ".join(home(o.entry) for o in sides)
        homes = " or ".join(sorted({repr(o.entry.distribution) for o in sides}))
        kept = "; genmode's own stays in force" if self.chosen else ""
        return (
            f"{NOUNS[self.kind]} {self.name!r} is provided by {who}{kept}. To choose, set "
            f"genmode.configure(prefer={{{self.name!r}: DISTRIBUTION}}) or "
            f"GENMODE_PREFER={self.name}=DISTRIBUTION, where DISTRIBUTION is {homes}"
        )

    def info(self, offer: Offer) -> ComponentInfo:
        """What is known of one of the offers."""
        state: State
        state, reason = "discovered", ""
        if offer in self.rivals:
            state, reason = "conflict", self.conflict()
        elif offer in self._refusals:
            state, reason = "disabled", self._refusals[offer]
        elif offer.error is not None:
            state, reason = "broken", str(offer.error)
        elif offer.found is not None:
            state = "registered" if offer.entry.distribution == REGISTERED else "loaded"
        entry = offer.entry
        return ComponentInfo(
            kind=entry.kind,
            name=entry.name,
            distribution=entry.distribution,
            version=entry.version,
            value=entry.value,
            path=entry.path,
            state=state,
            reason=reason,
            file=None if offer.found is None else source_file(offer.found),
            seconds=offer.seconds,
        )

    def faults(self) -> list[Fault]:
        """The conflict, once, and what is broken."""
        found = [(self.rivals[0], self.conflict())] if self.rivals else []
        found += [(o, str(o.error)) for o in self.offers if o.error is not None]
        return [
            Fault(o.entry.distribution, o.entry.version, self.name, why, o.entry.path, self.kind) for o, why in found
        ]


class Index:
    """One scan under one set of settings, and what is derived of them.

    Attributes:
        slots: sorted by kind and name.
        fields: key -> components that have it, once they are loaded; by whether third parties are in it.
        providers: loaded class -> where it comes from, for those that were asked for.
        relay: the hook plugins, once they are loaded.
        lock: the lock in force, or None.
    """

    def __init__(self, scan: Scan, settings: Settings, slots: Mapping[Key, Slot], lock: Lock | None = None) -> None:
        self.scan = scan
        self.settings = settings
        self.slots = slots
        self.lock = lock
        self.fields: dict[bool, dict[str, list[Key]]] = {}
        self.providers: dict[type, tuple[Slot, Offer]] = {}
        self.relay: Relay | None = None


def arrange(scan: Scan, offers: Iterable[Offer], settings: Settings, lock: Lock | None = None) -> Index:
    """Settle every name."""
    by_key: dict[Key, list[Offer]] = {}
    for offer in offers:
        by_key.setdefault((offer.entry.kind, offer.entry.name), []).append(offer)
    return Index(scan, settings, {key: Slot(by_key[key], settings, lock) for key in sorted(by_key)}, lock)


def shared_key(key: str, infos: Iterable[ComponentInfo]) -> str:
    """The message where components of several distributions have one key."""
    infos = sorted(infos, key=lambda info: (info.distribution, info.kind, info.name))
    who = " and of ".join(f"{NOUNS[i.kind]} {i.name!r} of {i.origin}" for i in infos)
    homes = " or ".join(sorted({repr(i.distribution) for i in infos}))
    return (
        f"{key!r} is a parameter of {who}. Name the component that is meant in the call, or set "
        f"genmode.configure(prefer={{'parameters:{key}': DISTRIBUTION}}), where DISTRIBUTION is {homes}"
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
    noun = NOUNS[kind]
    for fault in index.scan.faults:
        if (fault.kind, fault.name) == (kind, name):
            return PluginLoadError(f"{noun} {name!r} cannot be loaded: {fault}")
    ways: list[str] = []
    names = [k[1] for k in index.slots if k[0] == kind]
    elsewhere = [k[0] for k in index.slots if k[1] == name]
    hidden = [e for e in index.scan.shadowed if (e.kind, e.name) == (kind, name)]
    if elsewhere:
        ways.append(f"there is a {' and a '.join(NOUNS[k] for k in elsewhere)} of that name")
    ways += [hiding(e, index.scan) for e in hidden]
    if not ways:
        ways.append("`genmode list` shows what is installed")
        ways.append("if a plugin provides it, install that first: pip install DISTRIBUTION")
    return UnknownComponentError(f"no {noun} is named {name!r}{hint(name, names)} ({'; '.join(ways)})")
