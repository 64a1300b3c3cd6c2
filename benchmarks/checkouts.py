"""Two checkouts beside each other: how much slower or faster the second is, strategy by strategy.

    git worktree add /somewhere/before <commit>
    python benchmarks/checkouts.py /somewhere/before .

Each checkout runs in a process of its own, with its own sources in front of what is installed, and both take turns; one
thread, a tiny Llama, processor time. So the ratios are of one run. Below 1 the second is faster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import parser, save, table

ROOTS = ("registry", "strategies", "processors")
CASES: dict[str, dict[str, Any]] = {
    "greedy_search, 1 row": {"rows": 1},
    "greedy_search, 8 rows": {"rows": 8},
    "greedy_search, 8 rows, penalties": {"rows": 8, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    "sample, 8 rows": {"rows": 8, "do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9},
    "sample, 8 rows, seed": {"rows": 8, "do_sample": True, "top_k": 50, "seed": 1},
    "beam_search, 4 beams": {"rows": 2, "num_beams": 4},
    "beam_sample, 4 beams, seed": {"rows": 2, "num_beams": 4, "do_sample": True, "seed": 1},
    "group_beam_search, 4 beams in 2": {"rows": 2, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive_search, 4 candidates": {"rows": 2, "penalty_alpha": 0.6, "top_k": 4},
    "dola_generation": {"rows": 2, "dola_layers": "low"},
    "prompt_lookup, 4 tokens": {"rows": 2, "prompt_lookup_num_tokens": 4},
}
NEW = 64


def work() -> None:
    """A worker: reads names of cases, answers with the seconds that each took."""
    import time

    import torch
    from cpu import prompt, tiny

    import genmode

    torch.set_num_threads(1)
    model = tiny()
    for line in sys.stdin:
        flags = dict(CASES[line.strip()])
        ids = prompt(flags.pop("rows"), 32)
        call = {"max_new_tokens": NEW, "eos_token_id": None, "do_sample": False, **flags}
        begin = time.process_time()
        genmode.generate(model, ids, **call)
        print(time.process_time() - begin, genmode.__file__, flush=True)


class Worker:
    """A process that runs the cases of one checkout."""

    def __init__(self, root: Path) -> None:
        path = os.pathsep.join(str(root.resolve() / one) for one in ROOTS)
        environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.root = root.resolve()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, name: str) -> float:
        """How long a case took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        seconds, file = self.process.stdout.readline().split()
        if not Path(file).is_relative_to(self.root):
            raise RuntimeError(f"{file} was measured, which is not of {self.root}")
        return float(seconds)


def main() -> None:
    """Measure, print, and write `results/checkouts.json`."""
    arguments = parser(str(__doc__).partition("\n")[0])
    arguments.add_argument("before", type=Path)
    arguments.add_argument("after", type=Path)
    given = arguments.parse_args()
    workers = [Worker(given.before), Worker(given.after)]
    best = {name: [float("inf")] * 2 for name in CASES}
    for turn in range(given.repeats + 1):
        for name in CASES:
            for place in (0, 1) if turn % 2 else (1, 0):
                seconds = workers[place].seconds(name)
                if turn:
                    best[name][place] = min(best[name][place], seconds)
    found = [{"case": name, "before, s": one, "after, s": two, "ratio": two / one} for name, (one, two) in best.items()]
    table(f"{NEW} new tokens, a tiny Llama, one thread", found)
    save(given.out / "checkouts.json", {"rows": found})


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--work"] else main()
