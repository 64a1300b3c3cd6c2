"""The package that the authors' guide describes is the one in plugins_example, and passes the kit."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from genmode.testing import Case, check_component

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "authors-guide.md").read_text(encoding="utf-8")
WRITTEN = ROOT / "plugins_example" / "genmode-fresh-words" / "src" / "genmode_fresh_words" / "__init__.py"


def test_the_metadata_is_that_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    told, real = tomllib.loads(block), tomllib.loads((WRITTEN.parents[2] / "pyproject.toml").read_text())
    for key in ("name", "dependencies", "entry-points"):
        assert told["project"][key] == real["project"][key]


def test_a_strategy_written_from_the_guide_passes_in_under_60_lines() -> None:
    spec = importlib.util.spec_from_file_location("genmode_fresh_words", WRITTEN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        report = check_component(Case(module.FreshWords, {"fresh_words_window": 6}))
    finally:
        del sys.modules[spec.name]
    assert not [one for one in report.outcomes if one.status == "skipped"]
    assert len(WRITTEN.read_text(encoding="utf-8").splitlines()) < 60
