"""Each line of the threat model has its test, and each test its line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
OTHERS = {"test_lines.py", "test_generated_distributions.py", "test_soak.py"}
"""Modules that are about the whole: this one, the attack by generated names, and the soak."""


def test_the_page_and_the_tests_have_the_same_lines() -> None:
    lines = re.findall(r"^\| .* \| `(test_\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == len(set(lines)) > 15
    modules = [module for module in sorted(HERE.glob("test_*.py")) if module.name not in OTHERS]
    found = [
        node.name
        for module in modules
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert sorted(found) == sorted(lines)
