"""`genmode lock`: writes, checks, and says what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from genmode.cli.app import app
from genmode.plugins.registry import Registry, use

from ..plugins.lock_support import ran

pytestmark = pytest.mark.no_torch


class TestCommand:
    def run(self, host: Registry, *argv: str) -> Any:
        with use(host):
            return CliRunner().invoke(app, argv)

    def test_write_and_check(self, site: Any, package: Path, tmp_path: Path) -> None:
        path = tmp_path / "a.lock"
        result = self.run(site.registry(), "lock", str(path))
        assert result.exit_code == 0, result.output
        assert "plug 1.0: 5 files, processors:it" in result.stdout
        assert self.run(site.registry(), "lock", "--check", str(path)).exit_code == 0
        (package / "inner.py").write_text("")
        result = self.run(site.registry(), "lock", "--check", "--json", str(path))
        assert result.exit_code == 1
        (difference,) = json.loads(result.stdout)["differences"]
        assert "plug/inner.py is not what the lock" in difference
        result = self.run(site.registry(lock=path), "doctor", "--json")
        assert result.exit_code == 1
        report = json.loads(result.stdout)
        assert report["lock"] == str(path)
        assert sum("plug/inner.py" in fault for fault in report["faults"]) == 1
        assert ran(site) == []

    def test_what_would_be_refused_is_said_in_a_line_each(
        self, site: Any, package: Path, tmp_path: Path, source: Any
    ) -> None:
        path = tmp_path / "a.lock"
        assert self.run(site.registry(), "lock", str(path)).exit_code == 0
        clean = json.loads(self.run(site.registry(lock=path), "lock", "--check", "--json", str(path)).stdout)
        assert clean == {"lock": str(path), "ok": True, "differences": [], "refused": []}
        site.plugin("late", "processors", "late", source("processors", "It"))
        (package / "inner.py").write_text("")
        result = self.run(site.registry(), "lock", "--check", str(path))
        assert result.exit_code == 1
        differs, refused, other, end = result.stdout.splitlines()
        assert differs.startswith("differs: plug 1.0")
        assert refused.startswith("refused: processor 'it' of plug 1.0")
        assert other.startswith("refused: processor 'late' of late 1.0")
        assert "does not name it" in other
        assert end == "something would be refused"
        blocked = self.run(site.registry(block="late"), "lock", "--check", "--json", str(path))
        assert len(json.loads(blocked.stdout)["refused"]) == 1  # what a setting forbids is not asked of the lock
        assert ran(site) == []

    def test_a_lock_that_is_missing_can_be_written_although_the_settings_name_it(
        self, site: Any, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.lock"
        monkeypatch.setenv("GENMODE_LOCK", str(path))
        result = self.run(Registry(site.distributions()), "list")
        assert result.exit_code == 1
        assert f"`genmode lock {path}`" in result.stderr
        assert self.run(Registry(site.distributions()), "lock").exit_code == 0
        assert "it" in self.run(Registry(site.distributions()), "list").stdout

    def test_a_folder_that_is_not_there(self, site: Any, tmp_path: Path) -> None:
        result = self.run(site.registry(), "lock", os.path.join(tmp_path, "no", "a.lock"))
        assert result.exit_code == 1
        assert "cannot be written" in result.stderr
