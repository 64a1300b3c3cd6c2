"""The modes that transformers 5 removed, against transformers 4.49 in a process of its own and a bare loop.

    python -m venv old && old/bin/pip install transformers==4.49.0 torch==2.13.0 numpy
    python benchmarks/removed_modes.py --old old/bin/python [--shape smollm2]

Random weights, one thread, processor time. The two processes take turns, one call each, and the best of all rounds
counts; read the ratios. The bare loop is genmode's process running forwards of as many rows, greedy, with transformers'
default cache. Shapes: `tiny` (4 layers of width 64, 1,000 tokens), where what is not the forward shows, and
`smollm2` (30 layers of width 576, 49,152 tokens), where the forward is nearly all. `--prompt` sets the length of the
prompt, 16 tokens if left out: what copies of the cache cost grows with it.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
    "smollm2": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    },
}  # fmt: skip
STEPS = {"tiny": 64, "smollm2": 24}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "greedy_search": ({}, 1),
    "contrastive_search, 4 candidates": ({"penalty_alpha": 0.6, "top_k": 4}, 4),
    "dola_generation, high": ({"dola_layers": "high", "repetition_penalty": 1.2}, 1),
    "beam_search, 4 beams": ({"num_beams": 4}, 4),
    "group_beam_search, 4 beams in 2": ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, 4),
    "group_beam_search, 8 beams in 4": ({"num_beams": 8, "num_beam_groups": 4, "diversity_penalty": 0.5}, 8),
    "constrained_beam_search, 4 beams": ({"num_beams": 4, "force_words_ids": [[7, 8], [11]]}, 4),
}
"""Flags, and rows of the bare loop."""


def model_of(shape: str) -> Any:
    """A random Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], initializer_range=0.2 if shape == "tiny" else 0.05, max_position_embeddings=8192,
        bos_token_id=1, eos_token_id=None, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def once(model: Any, steps: int, prompt: int, name: str, by: str) -> float:
    """Milliseconds a step of one call."""
    flags, rows = CASES[name]
    ids = torch.randint(3, 900, (1, prompt), generator=torch.Generator().manual_seed(1))
    begin = time.process_time()
    if by == "bare":
        cache, tokens = DynamicCache(config=model.config), ids.expand(rows, -1)
        for _ in range(steps):
            tokens = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens = tokens[:, -1].argmax(-1, keepdim=True)
    elif by == "genmode":
        import genmode

        genmode.generate(model, ids, attention_mask=torch.ones_like(ids), max_new_tokens=steps, **flags)
    else:
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=steps, do_sample=False, **flags)
    return (time.process_time() - begin) / steps * 1e3


def answer(shape: str, prompt: int) -> None:
    """The old process: a case's name on each line of the input, its milliseconds on each of the output."""
    model = model_of(shape)
    for line in sys.stdin:
        print(once(model, STEPS[shape], prompt, line.strip(), "transformers"), flush=True)


class Old:
    """The process that runs transformers 4.49."""

    def __init__(self, python: str, shape: str, prompt: int) -> None:
        self.process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), "--answer", shape, str(prompt)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def once(self, name: str) -> float:
        """Milliseconds a step of one call there."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        if not reply:
            raise RuntimeError("the process of transformers 4.49 has ended; run it by hand with --answer tiny 16")
        return float(reply)


def main() -> None:
    """Run all cases of one shape, print a table, write JSON."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    if "--answer" in sys.argv:
        answer(sys.argv[-2], int(sys.argv[-1]))
        return
    from common import parser, save, table

    arguments = parser(__doc__ or "")
    arguments.add_argument("--old", required=True, help="python of an environment with transformers 4.49.0")
    arguments.add_argument("--shape", choices=list(SHAPES), default="tiny")
    arguments.add_argument("--prompt", type=int, default=16, help="tokens of the prompt")
    options = arguments.parse_args()
    shape, prompt, steps = options.shape, options.prompt, STEPS[options.shape]
    model, old = model_of(shape), Old(options.old, shape, prompt)
    best: dict[tuple[str, str], float] = {}
    for turn in range(options.repeats + 1):
        for name in CASES:
            for by in ("bare", "genmode", "transformers 4.49"):
                took = once(model, steps, prompt, name, by) if by != "transformers 4.49" else old.once(name)
                if turn:
                    best[name, by] = min(took, best.get((name, by), took))
    rows = [
        {
            "strategy": name, "genmode ms/step": best[name, "genmode"],
            "genmode / bare": best[name, "genmode"] / best[name, "bare"],
            "transformers 4.49 / bare": best[name, "transformers 4.49"] / best[name, "bare"],
            "transformers 4.49 / genmode": best[name, "transformers 4.49"] / best[name, "genmode"],
        }
        for name in CASES
    ]  # fmt: skip
    table(f"Removed modes, {shape}, prompt {prompt}, one thread", rows)
    save(options.out / f"removed-modes-{shape}-{prompt}.json", {"prompt": prompt, "steps": steps, "strategies": rows})


if __name__ == "__main__":
    main()
