"""Every Python block of every page is run, in order, and every example in a docstring."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from genmode.cli import demo
from genmode.testing import isolated_host
from genmode.testing.harness.models import ids, tiny

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ON_A_TINY_MODEL = ("authors-guide", "plugins-and-settings")
"""Pages without text; all others are run on SmolLM2-135M-Instruct, where it can be had."""
SOURCES = [ROOT / "registry", ROOT / "strategies", ROOT / "processors"]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(page: Path, names: dict[str, Any]) -> str:
    """Run the blocks of a page in one namespace; returns what they print."""
    with isolated_host(), contextlib.redirect_stdout(io.StringIO()) as printed:
        for number, block in enumerate(blocks(page)):
            # As a reader runs it: without the __future__ import of this module.
            exec(compile(block, f"{page.name}, block {number}", "exec", dont_inherit=True), names)
    return printed.getvalue()


@pytest.mark.parametrize("name", ON_A_TINY_MODEL)
def test_pages_without_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokens = ids(2, 6)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    printed = run(ROOT / "docs" / f"{name}.md", {"__name__": "page", "model": tiny("llama"), "inputs": inputs})
    if name == "authors-guide":
        assert "passed  batch_invariance" in printed


@pytest.mark.demo
@pytest.mark.xdist_group("demo")
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in ON_A_TINY_MODEL and blocks(page)], ids=lambda page: page.stem
)
def test_pages_on_a_real_model(
    page: Path, loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARK_KEY", "2024")
    monkeypatch.setattr(demo, "load_demo", lambda: loaded)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda name: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: tokenizer)
    monkeypatch.setattr(tokenizer, "padding_side", "left")
    names = {"model": model, "tokenizer": tokenizer, "inputs": tokenizer("Water is", return_tensors="pt")}
    text = {"text": "The sea was calm that night, and nobody spoke.", "long_text": 20 * "Nobody spoke that night. "}
    assert "generate" not in vars(model)
    run(page, {"__name__": "page", **names, **text})
    assert "generate" not in vars(model)


def test_no_page_has_code_that_is_not_run() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert ">>>" not in text, f"{page.name}: write examples as ```python blocks, which are run"
        assert not re.search(r"^```(py|python3|pycon)$", text, re.MULTILINE), page.name


def test_examples_in_docstrings() -> None:
    """Of what has any; a wrong one is found."""
    for folder in SOURCES:
        for file in folder.rglob("*.py"):
            if re.search(r"^\s*>>> ", file.read_text(encoding="utf-8"), re.MULTILINE):
                module = importlib.import_module(".".join(file.relative_to(folder).with_suffix("").parts))
                assert doctest.testmod(module).failed == 0, file
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        assert doctest.DocTestRunner().run(example).failed == 1
