"""What the tests of the lock share: packages, and locks of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genmode.plugins.lock import Lock

Source = Callable[..., str]
TRACE = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\n"


def sha(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def locked(site: Any, path: Path, **settings: Any) -> Lock:
    made = site.registry(**settings).lock(path)
    made.write()
    return made


def record(site: Any, info: Path, *files: str) -> None:
    rows = [*files, *(f"{info.name}/{one}" for one in ("METADATA", "entry_points.txt", "RECORD", "INSTALLER"))]
    (info / "RECORD").write_text("".join(f"{row},,\n" for row in rows))


def installed(site: Any, source: Source) -> Path:
    """Distribution `plug`: package `plug` with a module and a data file, all of them in RECORD; each leaves a trace."""
    info = site.add("plug", entries={"processors": {"it": "plug.inner:It"}})
    folder: Path = site.folder / "plug"
    folder.mkdir()
    (folder / "__init__.py").write_text(TRACE)
    (folder / "inner.py").write_text(TRACE + source("processors", "It", "it_strength: float = 0.0"))
    (folder / "words.txt").write_text("a")
    record(
        site, info, "plug/__init__.py", "plug/inner.py", "plug/words.txt", "plug/__pycache__/inner.pyc", "../bin/plug"
    )
    return folder


def ran(site: Any) -> list[str]:
    return sorted(path.name for path in Path(site.folder).rglob("*.ran"))
