"""The cost of a watermark in one step on the CPU, against transformers' own, as ratios from one run.

    python benchmarks/watermarks.py [--repeats 15] [--vocab 128256] [--rows 8] [--threads 1] [--docs FILE] [--out FOLDER]

Each case is one call of the processor on `[rows, vocab]` scores that are normal numbers of deviation 3, with a
history of 64 tokens. Every call sees new contexts ("new"), the worst case, which in KGW costs a permutation of the
vocabulary for each row; or contexts that it has seen ("seen"). Scores, which a processor may write, are restored
between calls, outside the clock. Cases take turns; the best round counts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import best_of, parser, save, table, write_tables
from torch import Tensor
from transformers.generation import logits_process as theirs

import genmode

KEY = 15485863
DEPTH = 30
HASHED = ("unigram", "sweet", "ewd", "gumbel", "permute_and_flip", "unbiased", "dip")
LENGTH = 64


class Contexts:
    """Histories of random tokens: other ones at each call, or the same."""

    def __init__(self, rows: int, vocab: int, new: bool) -> None:
        self.rows, self.vocab, self.new = rows, vocab, new
        self.generator = torch.Generator().manual_seed(0)
        self.ids = self._draw()

    def _draw(self) -> Tensor:
        return torch.randint(0, self.vocab, (self.rows, LENGTH), generator=self.generator)

    def next(self) -> tuple[Tensor, genmode.History]:
        if self.new:
            self.ids = self._draw()
        starts = torch.zeros(self.rows, dtype=torch.long)
        return self.ids, genmode.History(self.ids, None, starts, LENGTH // 2, LENGTH)


def mark(name: str, **params: Any) -> genmode.Watermarker:
    return genmode.WatermarkingConfig(name, **params).build()


def ours(processor: Any, contexts: Contexts, work: Tensor) -> Callable[[], Any]:
    return lambda: processor.process(work, contexts.next()[1])


def twin(processor: Any, contexts: Contexts, work: Tensor) -> Callable[[], Any]:
    def run() -> Any:
        if isinstance(processor, theirs.SynthIDTextWatermarkLogitsProcessor):
            processor.state = None
        return processor(contexts.next()[0], work)

    return run


def cases(work: Tensor) -> dict[str, Callable[[], Any]]:
    rows, vocab = work.shape
    made: dict[str, Callable[[], Any]] = {}

    def add(name: str, build: Callable[..., Callable[[], Any]], processor: Any, new: bool = True) -> None:
        made[name] = build(processor, Contexts(rows, vocab, new), work)

    for ratio in (0.25, 0.5):
        for new in (True, False):
            when = "new" if new else "seen"
            add(f"kgw {ratio} {when}, transformers", twin,
                theirs.WatermarkLogitsProcessor(vocab, "cpu", ratio, 2.0, KEY), new)  # fmt: skip
            add(f"kgw {ratio} {when}", ours, mark("kgw", key=KEY, greenlist_ratio=ratio), new)
    for name in HASHED:
        add(name, ours, mark(name, key=KEY))
    return made


def slow_cases(work: Tensor) -> dict[str, Callable[[], Any]]:
    rows, vocab = work.shape
    keys = list(range(1, DEPTH + 1))
    stock = theirs.SynthIDTextWatermarkLogitsProcessor(5, keys, 65536, 0, 1024, torch.device("cpu"))
    own = theirs.WatermarkLogitsProcessor(vocab, "cpu", 0.25, 2.0, KEY, "selfhash", 4)
    selfhash = mark("kgw", key=KEY, seeding_scheme="selfhash", context_width=4)
    made: dict[str, Callable[[], Any]] = {}
    for name, build, processor in (
        ("synthid, transformers", twin, stock), ("synthid", ours, mark("synthid", keys=keys)),
        ("kgw selfhash, transformers", twin, own), ("kgw selfhash", ours, selfhash),
    ):  # fmt: skip
        made[name] = build(processor, Contexts(rows, vocab, True), work)
    return made


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--vocab", type=int, default=128_256)
    arguments.add_argument("--rows", type=int, default=8)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--docs", type=Path, help="page whose table is written anew")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    scores = torch.randn(options.rows, options.vocab, generator=torch.Generator().manual_seed(1)) * 3
    work = torch.empty_like(scores)
    restore = functools.partial(work.copy_, scores)
    quick = best_of(cases(work), max(options.repeats, 15), prepare=restore)
    slow = best_of(slow_cases(work), 3, prepare=restore)
    seconds = quick | slow
    base = seconds["kgw 0.5 new, transformers"]
    figures: list[dict[str, Any]] = []
    for name, value in seconds.items():
        stock = seconds.get(f"{name}, transformers")
        figures.append(
            {
                "case": name,
                "ms": value * 1e3,
                "times faster than transformers' twin": stock / value if stock else "",
                "times faster than transformers' KGW": base / value,
            }
        )
    table(f"one step, {options.rows} rows, vocabulary {options.vocab}, {options.threads} thread(s)", figures)
    if options.docs is not None:
        write_tables(options.docs, {"cost": figures})
    save(options.out / "watermarks-cpu.json", {"rows": options.rows, "vocab": options.vocab, "figures": figures})


if __name__ == "__main__":
    main()
