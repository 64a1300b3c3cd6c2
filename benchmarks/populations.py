"""Rows that leave: what a best of n costs beside as many samples, on the CPU with SmolLM2-135M.

    python benchmarks/populations.py

One prompt, 8 rows; behind every 16 tokens the worse half leaves. The rows of all forwards are counted. One thread and
processor time; all figures are of one run with the cases taking turns; read the ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from common import best_of, parser, save, table

import genmode
from genmode.cli import demo

NEW = 64
CASES: dict[str, dict[str, Any]] = {
    "8 samples": {"strategy": "sample", "num_return_sequences": 8},
    "best of 8, nobody leaves": {"strategy": "best_of_n", "best_of": 8, "best_of_every": NEW + 1},
    "best of 8, half leave every 16": {"strategy": "best_of_n", "best_of": 8, "best_of_every": 16},
    "best of 8, half leave every 8": {"strategy": "best_of_n", "best_of": 8, "best_of_every": 8},
    "1 sample": {"strategy": "sample"},
}


def main() -> None:
    """Measure, print, and write `results/populations.json`."""
    arguments = parser(str(__doc__).partition("\n")[0]).parse_args()
    torch.set_num_threads(1)
    model, tokenizer = demo.load_demo()
    inputs = tokenizer("The lighthouse at the end of the pier", return_tensors="pt")
    flags = {"seed": 1, "top_k": 0, "max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}

    def case(more: dict[str, Any]) -> Callable[[], torch.Tensor]:
        return lambda: genmode.generate(model, **inputs, **flags, **more)

    rows: dict[str, int] = {}
    for name, more in CASES.items():
        seen: list[int] = []
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        with hook:
            case(more)()
        rows[name] = sum(seen[1:])  # without the prompt's
    seconds = best_of({name: case(more) for name, more in CASES.items()}, arguments.repeats, clock=time.process_time)
    whole = seconds["8 samples"]
    found = [
        {"case": name, "rows of all forwards": rows[name], "of 8 samples": rows[name] / rows["8 samples"],
         "seconds": seconds[name], "time of 8 samples": seconds[name] / whole}
        for name in CASES
    ]  # fmt: skip
    table(f"{NEW} new tokens, SmolLM2-135M, CPU", found)
    save(arguments.out / "populations.json", {"rows": found})


if __name__ == "__main__":
    main()
