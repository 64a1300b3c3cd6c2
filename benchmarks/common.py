"""What the benchmarks share: interleaved timing, the machine's description, tables, also in pages, and plots."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--repeats", type=int, default=7, help="interleaved rounds; the best counts")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the plot")
    return arguments


def best_of(
    cases: dict[str, Callable[[], object]], repeats: int, settle: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter, prepare: Callable[[], object] = lambda: None,
) -> dict[str, float]:  # fmt: skip
    """Seconds of each case, the best of `repeats` rounds in which all take turns; one more round warms up.

    `time.process_time` as the clock leaves out what other programs take of the machine; for one thread alone.
    `prepare` runs before each, outside the clock.
    """
    best = dict.fromkeys(cases, float("inf"))
    for turn in range(repeats + 1):
        for name, run in cases.items():
            prepare()
            settle()
            begin = clock()
            run()
            settle()
            if turn:
                best[name] = min(best[name], clock() - begin)
    return best


def machine() -> dict[str, Any]:
    """Where and with what the figures were taken."""
    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "genmode")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys in columns."""
    print(f"\n{title}")
    if not rows:
        return
    cells = [[str(key) for key in rows[0]]]
    cells += [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def save(path: Path, results: dict[str, Any]) -> None:
    """Write the figures, with the machine, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    print(f"\nwritten: {path}")


def write_tables(path: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Put tables between the marks `<!-- NAME: begin -->` and `end` of a page."""
    page = path.read_text(encoding="utf-8")
    for name, rows in tables.items():
        head, _, rest = page.partition(f"<!-- {name}: begin -->\n")
        tail = rest.partition(f"<!-- {name}: end -->")[2]
        page = f"{head}<!-- {name}: begin -->\n{markdown(rows)}<!-- {name}: end -->{tail}"
    path.write_text(page, encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of rows with equal keys."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(path: Path, panels: dict[str, dict[str, list[tuple[float, float]]]], unit: str) -> None:
    """One panel for each title, one line for each name, of (x, y) points; skipped, aloud, without matplotlib."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.6), squeeze=False)
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, points in lines.items():
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xscale("log", base=2)
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"written: {path}")
