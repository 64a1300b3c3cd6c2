"""Which plugins may be loaded, which one wins a conflict, and which hook plugins are switched on.

A pattern is the name of a distribution (`genmode-contrib`, or `genmode-contrib:*`), a component of it
(`genmode-contrib:dry_run`), or a component of whichever distribution has it, by its name (`dry_run`) or its kind and
name (`processors:dry_run`). Distributions' names are compared as PyPI does, components' exactly. What trusts, `allow`
and `hooks`, has to say what it trusts and to lead to one distribution: the name of another one's component alone is no
pattern of theirs, since whoever takes that name would be trusted, and one that several distributions are meant by
switches on none of them. `block` takes every meaning and wins over everything. What genmode itself ships, and what the
program has registered, is allowed unless blocked. Of the rest, all is allowed by default; with `none`, or when `allow`
names anything, only what `allow` names.

Environment variables: GENMODE_PLUGINS (`all` or `none`), GENMODE_ALLOW, GENMODE_BLOCK and GENMODE_HOOKS
(patterns, separated by commas), GENMODE_PREFER (`component=distribution`, separated by commas), GENMODE_LOCK
(a file).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..contract.kinds import Kind
from ..errors import ParameterError
from .discovery import Entry, canonical
from .identity import HOST, REGISTERED


@dataclass(frozen=True)
class Settings:
    """Settings of a registry. Lists may be given as one string, separated by commas.

    Attributes:
        allow: patterns of what may be loaded, a component with its distribution or kind; naming anything forbids the rest, built-ins excepted.
        block: patterns of what is never loaded.
        none: load nothing but the built-ins and what `allow` names.
        prefer: component (or `kind:name`, or `parameters:key`) -> the distribution that provides it. The
            word `registered` stands for what the program has registered.
        hooks: patterns of the hook plugins that are switched on, besides genmode's own; one that does not say which
            distribution is meant is an error in each call, rather than calls that nothing watches.
        lock: a file that `genmode lock` wrote; of third parties, only what it names is loaded, and only as it
            was when the file was written. Empty for none.

    Raises:
        ParameterError: a value of the wrong type.
    """

    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    none: bool = False
    prefer: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    hooks: tuple[str, ...] = ()
    lock: str = ""

    def __post_init__(self) -> None:
        for name in ("allow", "block", "hooks"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        if not isinstance(self.none, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - users' input
            raise ParameterError(f"setting none={self.none!r} is not allowed; it has to be True or False")
        object.__setattr__(self, "prefer", _preferences(self.prefer))
        object.__setattr__(self, "lock", _file(self.lock))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment variables make.

        Raises:
            ParameterError: a variable cannot be understood; guessing could load what was to be blocked.
        """
        environ = os.environ if environ is None else environ
        plugins = environ.get("GENMODE_PLUGINS", "all").strip().lower()
        if plugins not in ("all", "none"):
            raise ParameterError(f"GENMODE_PLUGINS={plugins!r} is not allowed; it has to be `all` or `none`")
        return cls(
            allow=_patterns("allow", environ.get("GENMODE_ALLOW", "")),
            block=_patterns("block", environ.get("GENMODE_BLOCK", "")),
            none=plugins == "none",
            prefer=_preferences(environ.get("GENMODE_PREFER", "")),
            hooks=_patterns("hooks", environ.get("GENMODE_HOOKS", "")),
            lock=environ.get("GENMODE_LOCK", ""),
        )

    def unclear(
        self, entries: Iterable[Entry], distributions: Iterable[str] = (), hidden: Iterable[Entry] = ()
    ) -> dict[tuple[str, str], str]:
        """(setting, pattern) -> a sentence, for each pattern of `allow` and `hooks` that trusts nothing.

        It has several meanings, or is a component's name alone. Where the distribution that is meant is not installed, its
        name would else be that of any component which is called so.

        Args:
            entries: everything that is installed or registered.
            distributions: names of all distributions, also of those that offer nothing.
            hidden: what is not to be had, and is meant by a name nevertheless: hiding it must not give the name to another.
        """
        entries, distributions, hidden = tuple(entries), frozenset(distributions), tuple(hidden)
        found: dict[tuple[str, str], str] = {}
        for setting in ("allow", "hooks"):
            for pattern in getattr(self, setting):
                read = [
                    e
                    for e in (*entries, *hidden)
                    if matches(pattern, e) and (setting == "allow" or e.kind == Kind.HOOKS)
                ]
                meant = {f"{e.distribution}:{e.name}": e.distribution for e in read}
                names = {(e.kind, e.name) for e in read}
                homes = set(meant.values()) | ({canonical(pattern)} & distributions)
                here = homes <= {e.distribution for e in read if e not in hidden}
                one_name = len(names) == 1 and here  # a conflict of components, which `prefer` can settle
                strangers = {e.distribution for e in read} - {HOST, REGISTERED, canonical(pattern)}
                alone = bool(strangers) and ":" not in pattern
                if alone or (len(homes) > 1 and not one_name):
                    ways = [f"{home}:*" for home in homes if home == canonical(pattern)]
                    ways += [way for way, home in meant.items() if home != canonical(pattern)]
                    choices = " or ".join(map(repr, sorted(ways)))
                    why = "a component's name that does not say whose it is, so that it switches on nothing"
                    if len(homes) > 1:
                        why = (
                            f"by which {' and '.join(sorted(homes))} may be meant, so that it switches on none of them"
                        )
                    found[setting, pattern] = f"the setting `{setting}` names {pattern!r}, {why}; write {choices}"
        return found

    def refusal(self, entry: Entry, unclear: Mapping[tuple[str, str], str] | None = None) -> str | None:
        """Why the entry may not be loaded; None if it may.

        Args:
            entry: the entry.
            unclear: patterns that trust nothing, see the method `unclear`; None for none.
        """

        def named(setting: str) -> bool:
            """Whether the setting names the entry, and nothing but its distribution."""
            return any(matches(p, entry) and (setting, p) not in wrong for p in getattr(self, setting))

        def reason(setting: str, otherwise: str) -> str:
            return next((wrong[setting, p] for p in getattr(self, setting) if matches(p, entry)), otherwise)

        wrong = unclear or {}
        for pattern in self.block:
            if matches(pattern, entry):
                return f"blocked by {pattern!r} in the setting `block`"
        if entry.distribution in (HOST, REGISTERED):
            return None
        if (self.none or self.allow) and not named("allow"):
            return reason("allow", "the setting `allow` does not name it" + (" and `none` is set" if self.none else ""))
        if entry.kind == Kind.HOOKS and not named("hooks"):
            return reason("hooks", "the setting `hooks` does not name it, and hook plugins are switched on by name")
        return None

    def by_name_alone(self, entries: Iterable[Entry]) -> list[str]:
        """One sentence for each third party's component that `allow` or `hooks` names by its kind in place of its distribution."""
        found: list[str] = []
        for setting in ("allow", "hooks"):
            for pattern in getattr(self, setting):
                for entry in entries:
                    own = entry.distribution in (HOST, REGISTERED)
                    if not own and pattern == f"{entry.kind}:{entry.name}":
                        found.append(
                            f"setting `{setting}`: {pattern!r} trusts whichever distribution has it, now "
                            f"{entry.distribution}; write '{entry.distribution}:{entry.name}' to trust that one"
                        )
        return list(dict.fromkeys(found))

    def preferred(self, kind: str, name: str) -> str | None:
        """The distribution that `prefer` picks for a component, or for a key if `kind` is `parameters`."""
        bare = None if kind == "parameters" else self.prefer.get(name)
        return self.prefer.get(f"{kind}:{name}", bare)

    def unknown(self, entries: Iterable[Entry], distributions: Iterable[str] = ()) -> list[str]:
        """One sentence for each name in the settings that matches nothing.

        Args:
            entries: everything that is installed.
            distributions: names of further distributions, whose metadata is at fault.
        """
        entries = tuple(entries)
        distributed = {entry.distribution for entry in entries} | set(distributions) | {HOST}
        names = {entry.name for entry in entries} | {f"{entry.kind}:{entry.name}" for entry in entries}
        found: list[str] = []
        for setting in ("allow", "block", "hooks"):
            pool = [entry for entry in entries if setting != "hooks" or entry.kind == Kind.HOOKS]
            homes = distributed if setting != "hooks" else {entry.distribution for entry in pool}
            words = homes | {
                word for e in pool for word in (e.name, f"{e.kind}:{e.name}", f"{e.distribution}:{e.name}")
            }
            for pattern in getattr(self, setting):
                if not any(matches(pattern, e) for e in pool) and canonical(pattern.removesuffix(":*")) not in homes:
                    found.append(f"setting `{setting}`: nothing is named {pattern!r}{hint(pattern, words)}")
        for name, chosen in self.prefer.items():
            providers = {entry.distribution for entry in entries if name in (entry.name, f"{entry.kind}:{entry.name}")}
            if name.startswith("parameters:"):
                providers = distributed
            if not providers:
                found.append(f"setting `prefer`: no component is named {name!r}{hint(name, names)}")
            elif chosen != REGISTERED and chosen not in providers:
                found.append(f"setting `prefer`: {chosen!r} does not provide {name!r}{hint(chosen, providers)}")
        return found


def matches(pattern: str, entry: Entry) -> bool:
    """Whether the pattern names the entry in any way: by its distribution, by its name, or by one of both with a colon."""
    home, colon, name = pattern.partition(":")
    if not colon:
        return pattern == entry.name or canonical(pattern) == entry.distribution
    of_home = canonical(home) == entry.distribution and name in (entry.name, "*")
    return of_home or (home, name) == (entry.kind, entry.name)


def closest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `words` that `word` was most likely meant to be; None if none is as near as `cutoff`.

    Neither case nor the order of `words` matters.
    """
    import difflib

    by_key: dict[str, str] = {}
    for candidate in sorted(set(words), reverse=True):
        by_key[candidate.lower()] = candidate
    near = difflib.get_close_matches(word.lower(), sorted(by_key), n=1, cutoff=cutoff)
    return by_key[near[0]] if near else None


def hint(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = closest(word, map(str, words))
    return f"; did you mean {near!r}?" if near else ""


def _patterns(setting: str, value: Any) -> tuple[str, ...]:
    words: Any = value.split(",") if isinstance(value, str) else value
    if not hasattr(words, "__iter__") or hasattr(words, "items"):
        raise ParameterError(f"setting {setting}={value!r} is not allowed; it has to be a list of names")
    patterns: list[str] = []
    for word in words:
        if not isinstance(word, str):
            raise ParameterError(f"setting {setting} contains {word!r}; every name has to be a string")
        if word.strip():
            patterns.append(word.strip())
    return tuple(dict.fromkeys(patterns))


def _file(value: Any) -> str:
    """The absolute path, so that a change of the working directory changes nothing."""
    if not isinstance(value, (str, os.PathLike)):
        raise ParameterError(f"setting lock={value!r} is not allowed; it has to be a file, or empty for none")
    path = os.fspath(value)  # pyright: ignore[reportUnknownVariableType]
    return os.path.abspath(path) if path else ""


def _preferences(value: Any) -> dict[str, str]:
    pairs: list[list[Any]] = [[value]]
    if isinstance(value, str):
        pairs = [list(pair.split("=", 1)) for pair in value.split(",") if pair.strip()]
    elif hasattr(value, "items"):
        pairs = [[key, distribution] for key, distribution in value.items()]
    chosen: dict[str, str] = {}
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(part, str) and part.strip() for part in pair):
            raise ParameterError(
                f"setting prefer={value!r} is not allowed; it has to map components to distributions, "
                "in the environment as GENMODE_PREFER=component=distribution,..."
            )
        chosen[pair[0].strip()] = canonical(pair[1])
    return chosen
