"""`genmode new`: what it refuses is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cli_support import run


@pytest.mark.parametrize(
    ("name", "says"),
    [("a" * 300, "up to 100 small letters"), ("A", "up to 100"), ("class", "up to 100"), ("a" * 101, "up to 100")],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, says: str) -> None:
    result = run("new", "processor", name, "--folder", str(tmp_path / "it"))
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr) < 400
    assert not list(tmp_path.iterdir())


def test_the_longest_name(tmp_path: Path) -> None:
    assert run("new", "processor", "a" * 100, "--folder", str(tmp_path / "it")).exit_code == 0


@pytest.mark.parametrize("place", ["a" * 300, "file/below", "link/below"])
def test_folders_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    result = run("new", "strategy", "it", "--folder", str(tmp_path / place))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert "give another --folder" in result.stderr
