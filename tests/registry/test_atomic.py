"""Files appear whole: after errors, interrupts and SIGKILL."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import genmode
from genmode.atomic import write_text

WRITER = """
import itertools, sys
from genmode.plugins.lock import Lock, Locked
for turn in itertools.count():
    files = {f"plug/{n}.py": f"sha256:{turn}" for n in range(20_000)}
    Lock(sys.argv[1], {("processors", "it"): "plug"}, {"plug": Locked(str(turn), files)}).write()
    print(turn, flush=True)
"""


@pytest.mark.no_torch
def test_the_text_the_mode_and_a_link(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "ä\n")
    assert path.read_bytes() == b"\xc3\xa4\n"
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    write_text(link, "b")
    assert link.is_symlink()
    assert path.read_text() == "b"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


@pytest.mark.no_torch
def test_a_link_that_lies_in_wait_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".a.guessed.new").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a", "text")
    assert victim.read_text() == "mine"
    monkeypatch.undo()
    for n in range(9):
        (tmp_path / f".a.{os.getpid()}-{threading.get_ident() + n}.new").symlink_to(victim)
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"
    assert victim.read_text() == "mine"


@pytest.mark.no_torch
def test_a_private_file_and_a_long_name(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "open")
    path.chmod(0o644)
    write_text(path, "secret", private=True)
    assert path.stat().st_mode & 0o777 == 0o600
    write_text(tmp_path / ("a" * 255), "text")
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.no_torch
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_leaves_the_former_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "a"
    write_text(path, "former")

    def interrupted(handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(error):
        write_text(path, "new")
    assert path.read_text() == "former"
    assert os.listdir(tmp_path) == ["a"]


def test_a_config_is_written_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = genmode.GenerationConfig(max_new_tokens=3)
    config.save_pretrained(tmp_path)
    former = (tmp_path / "generation_config.json").read_text()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    config.max_new_tokens = 4
    with pytest.raises(KeyboardInterrupt):
        config.save_pretrained(tmp_path)
    assert (tmp_path / "generation_config.json").read_text() == former
    assert os.listdir(tmp_path) == ["generation_config.json"]


@pytest.mark.no_torch
def test_a_killed_writer_leaves_a_whole_lock(tmp_path: Path) -> None:
    """A process that writes locks of 1 MB without end is killed at five moments of its cycle."""
    path = tmp_path / "a.lock"
    for turn in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(0.011 * turn)
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        (distribution,) = json.loads(path.read_text())["distributions"].values()
        assert set(distribution["files"].values()) == {f"sha256:{distribution['version']}"}
        assert len(distribution["files"]) == 20_000
    left = [name for name in os.listdir(tmp_path) if name != "a.lock"]
    assert all(name.startswith(".a.lock.") and name.endswith(".new") for name in left)
