"""The cost of decoding on a CUDA device, against transformers, a bare replayed forward, and the memory floor.

    python benchmarks/gpu.py [--quick] [--compile]

A random Llama of 1.24 B parameters in bfloat16, prompt 128, 256 new tokens. The floor is the time in which the
device reads the weights once, at the rate at which it copies memory. All figures come from one run.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from common import parser, plot, save, table
from transformers import LlamaConfig, LlamaForCausalLM

import genmode

PROMPT, STEPS = 128, 256
SAMPLE = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9}
CASES: dict[str, dict[str, Any]] = {"greedy_search": {}, "sample": SAMPLE, "beam_search, 4 beams": {"num_beams": 4}}
FURTHER: dict[str, dict[str, Any]] = {
    "beam_sample, 4 beams": {"num_beams": 4, "do_sample": True},
    "group_beam_search, 4 beams in 2": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive_search, 4 candidates": {"penalty_alpha": 0.6, "top_k": 4},
    "dola_generation, low": {"dola_layers": "low", "repetition_penalty": 1.2},
    "prompt_lookup, 4 tokens": {"prompt_lookup_num_tokens": 4},
    "entropy_gate (example plugin)": {"strategy": "entropy_gate"},
}


def llama(**changes: Any) -> Any:
    """A random Llama of 1.24 B parameters, or of another shape."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 16384, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, **changes,
    }  # fmt: skip
    with torch.device("cuda"):
        return LlamaForCausalLM(LlamaConfig(**shape)).to(torch.bfloat16).eval()


def ids_of(rows: int, length: int = PROMPT, vocabulary: int = 128000) -> torch.Tensor:
    """Random token ids on the device, `[rows, length]`."""
    return torch.randint(3, vocabulary, (rows, length), device="cuda", generator=torch.Generator("cuda").manual_seed(1))


def seconds(run: Callable[[], object], repeats: int = 2) -> tuple[float, float]:
    """Best of `repeats` after one warm-up, and the warm-up itself."""

    def once() -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    first = once()
    return min(once() for _ in range(repeats)), first


def floor(model: Any) -> dict[str, float]:
    """Copy rate in TB/s, bytes of weights in GB, and milliseconds to read them once."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best, _ = seconds(lambda: [target.copy_(source) for _ in range(10)], 5)
    rate = 10 * 2 * source.numel() / best
    weights = sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())
    return {"copy TB/s": rate / 1e12, "weights GB": weights / 1e9, "floor ms": weights / rate * 1e3}


def ours(model: Any, rows: int, flags: dict[str, Any], steps: int = STEPS, length: int = PROMPT) -> tuple[float, float]:
    """Milliseconds a step, prefill shared out, and seconds of the first call."""
    ids = ids_of(rows, length, model.config.vocab_size - 8)
    best, first = seconds(lambda: genmode.generate(model, ids, max_new_tokens=steps, **flags))
    return best / steps * 1e3, first


def theirs(model: Any, rows: int, flags: dict[str, Any]) -> float:
    """Milliseconds a step of transformers' own generate."""
    ids = ids_of(rows)
    best, _ = seconds(lambda: model.generate(ids, max_new_tokens=STEPS, **flags), 1)
    return best / STEPS * 1e3


def main() -> None:
    """Run everything, print tables, write JSON and a plot."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--quick", action="store_true", help="leave out transformers, further strategies and growth")
    arguments.add_argument(
        "--compile", action="store_true", help="also the compiled tier, which takes minutes to prepare"
    )
    options = arguments.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    model = llama()
    results: dict[str, Any] = {"floor": floor(model)}
    table("Floor", [results["floor"]])
    least = results["floor"]["floor ms"]

    rows: list[dict[str, Any]] = []
    for batch in (1, 8):
        for name, flags in CASES.items():
            step, first = ours(model, batch, flags)
            line: dict[str, Any] = {
                "strategy": name,
                "batch": batch,
                "ms/step": step,
                "/ floor": step / least,
                "first s": first,
            }
            if not options.quick:
                default = theirs(model, batch, flags)
                line |= {"transformers ms": default, "transformers / genmode": default / step}
            rows.append(line)
    results["strategies"] = rows
    table("Strategies", rows)

    host = llama(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    results["host"] = [
        {"strategy": name, "batch": batch, "host ms/step": ours(host, batch, flags)[0]}
        for batch in (1, 8) for name, flags in CASES.items()
    ]  # fmt: skip
    table("Host work: the same on a model that costs the device next to nothing", results["host"])

    if not options.quick:
        static = {"cache_implementation": "static"}
        rows = []
        for name in ("greedy_search", "sample"):
            rows.append(
                {
                    "strategy": name,
                    "batch": 1,
                    "transformers static, compiled ms": theirs(model, 1, CASES[name] | static),
                }
            )
        results["transformers_static"] = rows
        table("transformers' static cache with its automatic compile", rows)
        rows = []
        for batch in (1, 8):
            for name, flags in FURTHER.items():
                step, first = ours(model, batch, flags)
                rows.append({"strategy": name, "batch": batch, "ms/step": step, "first s": first})
        results["further"] = rows
        table("Further strategies", rows)
        panels: dict[str, dict[str, list[tuple[float, float]]]] = {"greedy, batch": {}, "greedy, tokens of context": {}}
        for batch in (1, 4, 16, 64):
            panels["greedy, batch"].setdefault("genmode", []).append((batch, ours(model, batch, {}, 64)[0]))
        for length in (128, 1024, 4096, 8192):
            step, _ = ours(model, 1, {}, 64, length)
            begin, _ = ours(model, 1, {}, 1, length)
            panels["greedy, tokens of context"].setdefault("genmode, prefill taken off", []).append(
                (length, (step * 64 - begin) / 63)
            )
        results["growth_ms_per_step"] = panels
        for title, lines in panels.items():
            table(title, [{"size": x, name: y} for name, points in lines.items() for x, y in points])
        plot(options.out / "gpu.png", panels, "ms a step")
    if options.compile:
        rows = []
        for name in ("greedy_search", "sample"):
            step, first = ours(model, 1, CASES[name] | {"compile": True})
            rows.append({"strategy": name, "batch": 1, "ms/step": step, "/ floor": step / least, "first s": first})
        results["compiled"] = rows
        table("Compiled tier", rows)
    save(options.out / "gpu.json", results)


if __name__ == "__main__":
    main()
