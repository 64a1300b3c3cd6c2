"""What is installed: from distributions to entries, by their metadata alone.

A chain of pure functions with the reading at one edge: `read` takes what one distribution offers off the
disk, `unique` drops distributions hidden by another of the same name, `parse` turns text into entries and
faults, `scan` joins them. Nothing is imported, and of a distribution only the name of its metadata folder
and `entry_points.txt` are read, so that hundreds of plugins cost milliseconds.

Order never depends on the order of directories: entries are sorted. Of two distributions with one name the
first on `sys.path` wins, as for importlib_metadata; of two in one folder (the remains of an upgrade) the
complete one, then the higher version, and neither if they offer different things. What loses is kept in
`Scan.shadowed`. A distribution that takes a name for what it is not (`identity`) is a fault and offers nothing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..contract.kinds import Kind
from .entries import Entry as Entry
from .entries import Fault as Fault
from .entries import Metadata as Metadata
from .entries import Scan as Scan
from .entries import canonical as canonical
from .entries import valid_name as valid_name
from .identity import HOST, PACKAGES, without_impostors, without_twins

_DISTRIBUTION_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.ASCII)
_OBJECT = re.compile(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?")


def installed() -> Iterable[Any]:
    """Every distribution of this environment, in the order of `sys.path`."""
    import importlib_metadata

    return importlib_metadata.distributions()


def scan(distributions: Iterable[Any]) -> Scan:
    """Entries, faults and shadowed entries of these distributions; no one of them can harm another.

    Args:
        distributions: objects as `importlib_metadata.distributions()` gives them.
    """
    found: list[Metadata] = []
    faults: list[Fault] = []
    for distribution in _survivors(distributions, faults):
        try:
            found.append(read(distribution))
        except Exception as error:  # whatever a provider's own Distribution class may raise
            faults.append(_unreadable(distribution, error))
    trusted, impostors = without_impostors(found)
    kept, hidden = unique(trusted)
    clear, unclear = without_twins(kept, hidden)
    hidden += [metadata for metadata in kept if metadata not in clear]
    faults += [*impostors, *unclear]
    entries: list[Entry] = []
    for metadata in clear:
        if metadata.text:
            ours, wrong = parse(metadata)
            entries += ours
            faults += wrong
    shadowed = [entry for metadata in hidden if metadata.text for entry in parse(metadata)[0]]
    hiders = {metadata.name: metadata.path for metadata in kept}
    hiders = {e.distribution: hiders[e.distribution] for e in shadowed if e.distribution in hiders}
    return Scan(
        tuple(sorted(entries)),
        tuple(sorted(set(faults))),
        tuple(sorted(shadowed)),
        hiders,
        tuple(sorted({*impostors, *unclear})),
        frozenset(metadata.name for metadata in found),
    )


def read(distribution: Any) -> Metadata:
    """The only function here that touches the disk.

    Raises:
        OSError, UnicodeError: `entry_points.txt` is there but cannot be read.
        Exception: whatever a `Distribution` class of somebody else raises.
    """
    path: Any = getattr(distribution, "_path", None)
    if not hasattr(path, "__fspath__"):  # in an archive, or from a finder of somebody else
        name, version = _stated(distribution)
        where = str(path or name)
        return Metadata(canonical(name), version, where, where, True, _foreign_text(distribution))
    full = str(path)
    folder, stem = os.path.split(full)
    base, extension = os.path.splitext(stem)
    name, _, version = base.partition("-")
    if extension == ".egg-info":
        version = version.partition("-")[0]
    text = _text(os.path.join(full, "entry_points.txt"))
    complete = any(os.path.isfile(os.path.join(full, file)) for file in ("METADATA", "PKG-INFO"))
    if text and complete and not (extension in (".dist-info", ".egg-info") and version[:1].isdigit()):
        name, version = _stated(distribution)
    if text and not name.isascii():  # some letters become others of ASCII where case is dropped
        raise ValueError(f"the name {name!r} has letters that no distribution's name has")
    if text and complete and canonical(stated := _stated_name(full)) != canonical(name):
        raise ValueError(f"the folder says that it is {name!r}, METADATA that it is {stated!r}")
    return Metadata(canonical(name), version, folder, full, complete, text)


def unique(found: Iterable[Metadata]) -> tuple[list[Metadata], list[Metadata]]:
    """The distribution that counts for each name, and those that it hides."""
    rivals: dict[str, list[Metadata]] = {}
    for metadata in found:
        rivals.setdefault(metadata.name, []).append(metadata)
    kept: list[Metadata] = []
    hidden: list[Metadata] = []
    for name in sorted(rivals):
        first, *others = rivals[name]
        winner = max([first] + [m for m in others if m.folder == first.folder], key=_rank)
        kept.append(winner)
        if others:  # a folder that is on sys.path twice, maybe through a link, hides nothing
            here = os.path.realpath(winner.path)
            hidden += [m for m in rivals[name] if os.path.realpath(m.path) != here]
    return kept, hidden


def parse(metadata: Metadata) -> tuple[list[Entry], list[Fault]]:
    """Entries of our groups, and one fault for each thing that is wrong with them."""

    def fault(reason: str, name: str = "", kind: str = "") -> Fault:
        return Fault(metadata.name, metadata.version, name, reason, metadata.path, kind)

    if not _DISTRIBUTION_NAME.fullmatch(metadata.name):
        return [], [fault("not a distribution's name, most likely left over by an interrupted installation")]
    if not metadata.complete:
        return [], [fault("its metadata has no METADATA file; remove the folder or reinstall the package")]
    lines, unclear, faults = _sections(metadata.text)
    if unclear:
        where = ", ".join(map(str, unclear[:5]))
        faults.append(f"entry_points.txt says neither `[group]` nor `name = module:object` in line {where}")
    entries: dict[tuple[str, str], Entry] = {}
    wrong = [fault(reason) for reason in faults]
    for kind, name, value in lines:
        if not valid_name(name):
            allowed = "letters, digits, `_`, and between them `-` and `.`"
            wrong.append(fault(f"the name has odd characters; allowed are {allowed}", repr(name), kind))
        elif not _OBJECT.fullmatch(value):
            wrong.append(fault(f"{value!r} names no object; it has to read `module:object`", name, kind))
        elif metadata.name == HOST and re.split(r"\W", value, maxsplit=1)[0] not in PACKAGES:
            wrong.append(fault(f"{value!r} is in no package of {HOST}'s", name, kind))
        elif (kind, name) in entries and entries[kind, name].value != value:
            wrong.append(fault(f"given twice, as {entries[kind, name].value!r} and {value!r}", name, kind))
        else:
            entries[kind, name] = Entry(kind, name, metadata.name, metadata.version, value, metadata.path)
    refused = {(f.kind, f.name) for f in wrong}
    return [entry for key, entry in entries.items() if key not in refused], wrong


def _sections(text: str) -> tuple[list[tuple[str, str, str]], list[int], list[str]]:
    """(kind, name, value) of each line in a group of ours, numbers of unclear lines, wrong groups."""
    lines: list[tuple[str, str, str]] = []
    unclear: list[int] = []
    wrong: list[str] = []
    kinds: dict[str, str] = {one.group: one.value for one in Kind}
    kind: str | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            group = line[1:-1].strip()
            kind = kinds.get(group)
            if kind is None and group.startswith("genmode."):
                wrong.append(f"there is no group {group!r}; the groups are {', '.join(kinds)}")
            continue
        if line[0] == "[":
            kind = None
            unclear.append(number)
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if kind is not None:
            if name and equals and value:
                lines.append((kind, name, value))
            else:
                unclear.append(number)
    return lines, unclear, wrong


def _survivors(distributions: Iterable[Any], faults: list[Fault]) -> Iterator[Any]:
    """The distributions, up to where the search itself fails."""
    iterator = iter(distributions)
    while True:
        try:
            distribution = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # a finder on sys.meta_path; what it may raise is unknown
            faults.append(Fault("", "", "", f"the search for distributions failed: {error!r}", ""))
            return
        yield distribution


def _text(path: str) -> str:
    """The file's text if it mentions a group of ours; other packages' files are none of our business."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return raw.decode("utf-8-sig") if b"genmode." in raw else ""


def _stated(distribution: Any) -> tuple[str, str]:
    """Name and version as METADATA states them; slow, for folders whose names do not tell."""
    name, version = distribution.name, distribution.version
    if not name or not version:
        raise ValueError("METADATA states no Name or no Version")
    return str(name), str(version)


def _stated_name(folder: str) -> str:
    """The Name of METADATA, read up to there; importlib_metadata reads all of it, which is slow for hundreds."""
    file = next(f for f in ("METADATA", "PKG-INFO") if os.path.isfile(os.path.join(folder, f)))
    with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as opened:
        for line in itertools.takewhile(str.strip, opened):
            key, _, value = line.partition(":")
            if key.lower() == "name":
                return value.strip()
    raise ValueError("METADATA states no Name")


def _foreign_text(distribution: Any) -> str:
    """What `entry_points.txt` would say, of a distribution that is no folder on the disk."""
    lines = [
        f"[{point.group}]\n{point.name} = {point.value}\n"
        for point in distribution.entry_points
        if str(point.group).startswith("genmode.")
    ]
    return "".join(lines)


def _unreadable(distribution: Any, error: Exception) -> Fault:
    path = str(getattr(distribution, "_path", "") or "")
    base = os.path.splitext(os.path.basename(path))[0]
    name, _, version = base.partition("-")
    reason = f"its metadata cannot be read: {type(error).__name__}: {error}"
    return Fault(canonical(name) or type(distribution).__name__, version, "", reason, path)


def _rank(metadata: Metadata) -> tuple[bool, list[int], str]:
    numbers = [int(n) for n in re.findall(r"\d+", metadata.version)]
    return metadata.complete, numbers, metadata.path
