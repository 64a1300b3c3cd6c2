"""Who a distribution is: names that stand for trust are not to be had by calling oneself so.

Built-in components and what the program registers may be loaded under every setting and every lock. So the host is not
whichever distribution is called `genmode`, but the one that holds the files of the genmode that runs, and the words
that settings give a meaning of their own are no distribution's name.

A metadata folder holds the host's files if it lies beside them and its RECORD lists them, or if it says that it is an
editable installation of the folder that they are in, or, where an operating system's packager has removed RECORD, if it
lies beside them. The strongest of these counts; of equal ones the version that the code states, under the name that pip
would give the folder. If that does not tell them apart either, none is the host. Where there is but one that is called
`genmode`, however it was installed, it is the host: objects of genmode's own packages are all that it can offer.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..contract.kinds import Kind
from ..version import __version__
from .entries import Fault, Metadata

HOST = "genmode"
"""The distribution that ships the host and the built-in components."""

REGISTERED = "registered"
"""Stands for the distribution of what the program itself registers with `genmode.register`."""

RESERVED = frozenset({REGISTERED, "parameters", *(kind.value for kind in Kind)})
"""Words of the settings, which no distribution can have for its name."""

PACKAGES = frozenset({HOST, "genmode_strategies", "genmode_processors"})
"""What the host's distribution may name objects of."""

FILES = os.path.realpath(Path(__file__).parents[1])
"""The folder of the genmode that runs, behind links."""


class Claim(NamedTuple):
    """How well a metadata folder is shown to be the host's; the larger the better, 0 first of all for not at all."""

    shown: int
    of_this_version: bool
    named_as_installed: bool


def without_impostors(found: list[Metadata]) -> tuple[list[Metadata], list[Fault]]:
    """The distributions that are who they say they are, and a fault for each other one that offers something."""
    host = host_of(m.path for m in found if m.name == HOST)
    wrong: dict[Metadata, str] = {}
    for metadata in found:
        if metadata.name in RESERVED:
            wrong[metadata] = f"{metadata.name!r} is a word of genmode's settings, and no distribution's name"
        elif metadata.name == HOST and (host is None or os.path.realpath(metadata.path) != os.path.realpath(host)):
            belong = "cannot be told from others that say so too" if host is None else f"belong to {host}"
            wrong[metadata] = f"it calls itself {HOST}, but the files of the genmode that runs {belong}"
    told = [
        Fault(m.name, m.version, "", f"{why}; nothing of it is used. Uninstall it, or remove the folder", m.path)
        for m, why in wrong.items()
        if m.text or m.name == HOST
    ]
    return [metadata for metadata in found if metadata not in wrong], told


def without_twins(kept: list[Metadata], hidden: list[Metadata]) -> tuple[list[Metadata], list[Fault]]:
    """Those of `kept` that no other one in the same folder contradicts, and a fault for each other one.

    Any wheel can lay a second metadata folder of a trusted name beside the first, and nothing tells which is right. Of
    the remains of an upgrade, the files are gone or overwritten.
    """
    rivals: dict[tuple[str, str], list[Metadata]] = {}
    for metadata in hidden:
        if metadata.complete:
            rivals.setdefault((metadata.name, metadata.folder), []).append(metadata)
    faults: list[Fault] = []
    clear: list[Metadata] = []
    for metadata in kept:
        twins = rivals.get((metadata.name, metadata.folder), ())
        others = [m for m in twins if m.text != metadata.text and _stands(m.path)]
        if not others:
            clear.append(metadata)
            continue
        reason = f"{others[0].path} says that it is the same distribution and offers something else; nothing of either"
        reason += " is used. Reinstall the package, or remove the folder that does not belong to it"
        faults.append(Fault(metadata.name, metadata.version, "", reason, metadata.path))
    return clear, faults


def host_of(folders: Iterable[str]) -> str | None:
    """The one of these metadata folders, all of distributions called `genmode`, that is the host's; None if none is."""
    claims = {os.path.realpath(folder): (claim(folder), folder) for folder in folders}
    if len(claims) == 1:
        return next(folder for _, folder in claims.values())
    best = max((made for made, _ in claims.values()), default=Claim(0, False, False))
    ours = [folder for made, folder in claims.values() if made == best and made.shown]
    return ours[0] if len(ours) == 1 else None


def claim(folder: str) -> Claim:
    """What the metadata folder states of the files that run, as far as it can be believed."""
    beside = os.path.dirname(os.path.realpath(folder)) == os.path.dirname(FILES)
    shown = 3 if beside and _lists_files(folder) else 2 if _is_editable(folder) else int(beside)
    base = os.path.splitext(os.path.basename(folder))[0]
    return Claim(shown, base.endswith(f"-{__version__}"), base == f"{HOST}-{__version__}")


def _stands(folder: str) -> bool:
    """Whether RECORD lists Python files, and all of them are as it says."""
    listed = [row for row in csv.reader(_content(os.path.join(folder, "RECORD")).splitlines()) if len(row) > 1]
    hashes = {row[0]: row[1] for row in listed if row[0].endswith(".py") and row[1].startswith("sha256=")}
    root = os.path.dirname(folder)
    return bool(hashes) and all(_recorded_hash(os.path.join(root, file)) == said for file, said in hashes.items())


def _recorded_hash(file: str) -> str:
    """A file's hash as RECORD writes it; empty if it is not to be read."""
    try:
        digest = hashlib.sha256(Path(file).read_bytes()).digest()
    except OSError:
        return ""
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _lists_files(folder: str) -> bool:
    text = _content(os.path.join(folder, "RECORD"))
    return any(line.startswith(f"{HOST}/__init__.py,") for line in text.splitlines())


def _is_editable(folder: str) -> bool:
    """Whether `direct_url.json` (PEP 610) says that a folder above the files is installed to be edited."""
    from urllib.parse import urlsplit  # slow to import, and of no use where genmode is installed from a wheel
    from urllib.request import url2pathname

    try:
        said = json.loads(_content(os.path.join(folder, "direct_url.json")))
        url, editable = urlsplit(said["url"]), said["dir_info"]["editable"]
    except (ValueError, KeyError, TypeError):
        return False
    home = os.path.realpath(url2pathname(url.path))
    return editable is True and url.scheme == "file" and FILES.startswith(os.path.join(home, ""))


def _content(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError):
        return ""  # a file that is not to be read states nothing
