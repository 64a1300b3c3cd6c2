"""Write the tables of docs/speed.md from what the other scripts have measured.

    python benchmarks/speed_page.py

tests/docs/test_speed_page.py checks that the page holds the committed figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import RESULTS, write_tables

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
BARE = {
    "strategy": "strategy", "genmode / bare": "genmode / bare loop", "transformers / bare": "transformers / bare loop",
    "transformers / genmode": "transformers / genmode",
}  # fmt: skip
REMOVED = {
    "strategy": "strategy", "genmode / bare": "genmode / bare loop",
    "transformers 4.49 / bare": "transformers 4.49 / bare loop", "transformers 4.49 / genmode": "transformers 4.49 / genmode",
}  # fmt: skip
STEP = {
    "strategy": "strategy", "batch": "batch", "ms/step": "ms a step", "step behind the prompt": "without the prompt",
    "forward alone": "its forwards", "more than it": "more than these",
}  # fmt: skip
TABLES: dict[str, tuple[str, str, dict[str, str]]] = {
    "gpu": ("gpu-strategies.json", "strategies", {**STEP, "/ floor": "times the floor"}),
    "gpu-further": ("gpu-further.json", "further", STEP),
    "gpu-compiled": ("gpu-compiled.json", "compiled", {**STEP, "/ floor": "times the floor"}),
    "gpu-transformers": (
        "gpu-transformers.json", "transformers",
        {"strategy": "strategy", "batch": "batch", "genmode": "genmode, ms a step", "transformers": "transformers",
         "ratio": "ratio", "static, compiled": "transformers, static and compiled", "ratio to static": "ratio to that"},
    ),
    "cpu": ("cpu.json", "strategies", BARE),
    "cpu-drafting": ("cpu.json", "drafting", {"text": "text", "greedy / prompt_lookup": "greedy / prompt lookup"}),
    "removed-tiny": ("removed-modes-tiny-16.json", "strategies", REMOVED),
    "removed-smollm2": ("removed-modes-smollm2-16.json", "strategies", REMOVED),
    "removed-smollm2-512": ("removed-modes-smollm2-512.json", "strategies", REMOVED),
}  # fmt: skip
"""By mark on the page: file, key, and which columns under which heading."""


def tables() -> dict[str, list[dict[str, Any]]]:
    """The rows of each table on the page."""
    found: dict[str, list[dict[str, Any]]] = {}
    for mark, (file, key, columns) in TABLES.items():
        rows = json.loads((RESULTS / file).read_text())[key]
        found[mark] = [{head: row[name] for name, head in columns.items()} for row in rows]
    return found


if __name__ == "__main__":
    write_tables(PAGE, tables())
