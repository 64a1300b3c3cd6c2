"""Classifier-free guidance against transformers' UnbatchedClassifierFreeGuidanceLogitsProcessor.

    python benchmarks/guidance.py [--repeats 7] [--write benchmarks/results/guidance-cpu.json]

Both decode the same number of tokens of the same small random Llama, in one process, in turns; a ratio is the
median, over neighbouring calls, of their processor time by ours, on one thread of the CPU. transformers' processor serves one prompt: more prompts are
decoded by it one after the other, and as one batch without padding (which it can do where no prompt is padded).
The tokens of both are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from common import machine
from torch import Tensor

import genmode

TOKENS, PROMPT, NEGATIVE = 32, 32, 8


def build() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8000, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        initializer_range=0.05, eos_token_id=None, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def ratios(theirs: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of both, and the median of their ratios."""
    times: list[tuple[float, float]] = []
    for turn in range(repeats + 1):
        pair: list[float] = []
        for run in (theirs, ours):
            begin = time.process_time()
            run()
            pair.append((time.process_time() - begin) * 1e3)
        if turn:
            times.append((pair[0], pair[1]))
    return (
        statistics.median(t for t, _ in times),
        statistics.median(o for _, o in times),
        statistics.median(t / o for t, o in times),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    model = build()
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": TOKENS, "guidance_scale": 1.5}
    results: list[dict[str, Any]] = []
    for rows in (1, 4, 8):
        ids = torch.randint(5, 8000, (rows, PROMPT))
        negative = torch.randint(5, 8000, (rows, NEGATIVE))

        def stock(ids: Tensor = ids, negative: Tensor = negative) -> Tensor:
            result: Tensor = model.generate(
                ids, attention_mask=torch.ones_like(ids), negative_prompt_ids=negative, **flags
            )
            return result

        def ours(ids: Tensor = ids, negative: Tensor = negative) -> Tensor:
            result: Tensor = genmode.generate(
                model, ids, attention_mask=torch.ones_like(ids), negative_prompt_ids=negative, **flags
            )
            return result

        def one_by_one(ids: Tensor = ids, negative: Tensor = negative) -> Tensor:
            return torch.cat([stock(ids[i : i + 1], negative[i : i + 1]) for i in range(len(ids))])

        if not torch.equal(ours(), one_by_one()):
            raise SystemExit(f"{rows} rows: the tokens differ")
        for how, theirs in (("as one batch", stock), ("one by one", one_by_one)):
            if how == "one by one" and rows == 1:
                continue
            mine = ratios(theirs, ours, given.repeats)
            results.append(
                {"rows": rows, "theirs": how, "their ms": round(mine[0], 1), "our ms": round(mine[1], 1), "ratio": round(mine[2], 2)}
            )  # fmt: skip
            print(results[-1], flush=True)
    if given.write:
        report = {"machine": machine(), "tokens": TOKENS, "results": results}
        given.write.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
