"""Every Python block of the authors' guide is run, in order; the package written from it passes the kit."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from genmode.testing import Case, check_component, isolated_host
from genmode.testing.models import ids, tiny

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "authors-guide.md").read_text(encoding="utf-8")
WRITTEN = ROOT / "plugins_example" / "genmode-fresh-words" / "src" / "genmode_fresh_words" / "__init__.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def test_every_block_runs() -> None:
    names: dict[str, Any] = {"__name__": "guide", "model": tiny("llama"), "inputs": {"input_ids": ids(2, 6)}}
    names["inputs"]["attention_mask"] = torch.ones_like(names["inputs"]["input_ids"])
    found = blocks("python")
    assert len(found) == 6
    with isolated_host(), contextlib.redirect_stdout(io.StringIO()) as printed:
        for number, block in enumerate(found):
            exec(compile(block, f"docs/authors-guide.md, block {number}", "exec"), names)
    assert "passed  batch_invariance" in printed.getvalue()


def test_the_metadata_is_that_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    (block,) = blocks("toml")
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
