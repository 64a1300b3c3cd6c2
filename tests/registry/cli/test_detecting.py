"""`genmode detect`: texts, pages and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from genmode.cli.app import app

from ..watermark.detection_support import Words, config

pytestmark = pytest.mark.usefixtures("schemes")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("genmode.watermark.detection.load_tokenizer", lambda name: Words())
    monkeypatch.setenv("A_KEY", "0")
    file = tmp_path / "text.txt"
    file.write_text("1 3 5 7 9 11 13 15")

    def run(*argv: str, stdin: str | None = None) -> Any:
        return CliRunner().invoke(app, ["detect", *argv, "--tokenizer", "words"], input=stdin)

    run.file = file  # type: ignore[attr-defined]
    return run


def test_the_command_reads_a_file_and_writes_a_page(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = command(str(command.file), "--scheme", "parity", "--key-from", "env:A_KEY", "--html", str(out))
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("marked: p = 0.00391")
    assert "8 of 8 counted" in found.stdout
    assert out.read_text().startswith("<!doctype html>")
    config(separate=False).save(tmp_path / "mark.json")
    again = command(
        "-", "--config", str(tmp_path / "mark.json"), "--key-from", "env:A_KEY", "--json", "--fpr", "0.3", stdin="1 1 3"
    )
    told = json.loads(again.stdout)
    assert (told["tokens"], told["p_value"], told["marked"]) == (2, 0.25, True)
    windowed = command(
        str(command.file), "--scheme", "parity", "--key-from", "env:A_KEY", "--window", "9", "--set", "separate=true"
    )
    assert "passage: tokens 0 to 8: 1 3 5" in windowed.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give one of --config FILE and --scheme NAME"),
        (["--scheme", "parita"], "did you mean 'parity'"),
        (["--scheme", "parity"], "key has to be given"),
        (["--scheme", "parity", "--set", "separate"], "key=value"),
        (["--config", "none.json"], "no watermark configuration"),
    ],
)
def test_the_command_says_what_is_wrong(command: Any, argv: list[str], message: str) -> None:
    found = command(str(command.file), *argv)
    assert found.exit_code == 2
    assert message in found.output


def test_files_that_cannot_be_read(command: Any) -> None:
    assert "cannot be read" in command("none.txt", "--scheme", "parity").output
    assert "no tokens" in command("-", "--scheme", "parity", "--set", "key=0", stdin=" ").output
