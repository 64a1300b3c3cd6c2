"""The end of a sampling chain against transformers' own classes, as ratios from one run.

    python benchmarks/chain.py [--device cuda] [--batches 1 8 32] [--rounds 15] [--keep]

Chains: temperature, truncation, softmax and the draw of a token per row, as transformers does it, with the
fused chain on torch's generator (the same tokens), and with the fused chain on a seed's noise. Processors:
one call of each that stands in for a transformers class. Scores are of the size of Llama 3's vocabulary:
"normal" are independent normal numbers of deviation 3, "ranked" fall like a language model's with the
logarithm of the rank and are rounded to bfloat16, so that they have ties. What is compared is timed in
turns; a figure is the best of the rounds, each of which draws with noise of its own. `--keep` prints
without writing the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from torch import Tensor
from transformers.generation import logits_process as theirs

import genmode
from genmode.sampling import counter_rng as counter
from genmode.sampling.candidates import GeneratorNoise, draw
from genmode_processors.truncation.cutoffs import EpsilonCutoff, EtaCutoff
from genmode_processors.truncation.min_p import MinP
from genmode_processors.truncation.temperature import Temperature
from genmode_processors.truncation.top_h import TopH
from genmode_processors.truncation.top_k import TopK
from genmode_processors.truncation.top_p import TopP
from genmode_processors.truncation.typical import TypicalP

VOCAB = 128_256
RESULTS = Path(__file__).parent / "results"
CHAINS: dict[str, list[Any]] = {
    "temperature 0.8, top-k 50, top-p 0.9": [
        theirs.TemperatureLogitsWarper(0.8), theirs.TopKLogitsWarper(50), theirs.TopPLogitsWarper(0.9),
    ],
    "temperature 0.8, top-p 0.9": [theirs.TemperatureLogitsWarper(0.8), theirs.TopPLogitsWarper(0.9)],
    "temperature 0.8, min-p 0.05": [theirs.TemperatureLogitsWarper(0.8), theirs.MinPLogitsWarper(0.05)],
    "temperature 0.8": [theirs.TemperatureLogitsWarper(0.8)],
}  # fmt: skip
PROCESSORS: list[Any] = [
    theirs.TemperatureLogitsWarper(0.8), theirs.TopKLogitsWarper(50), theirs.TopPLogitsWarper(0.9),
    theirs.MinPLogitsWarper(0.05), theirs.TypicalLogitsWarper(0.9), theirs.EpsilonLogitsWarper(3e-4),
    theirs.EtaLogitsWarper(3e-4), theirs.TopHLogitsWarper(0.4),
]  # fmt: skip
OURS: list[type[genmode.LogitsProcessor]] = [
    Temperature, TopK, TopP, MinP, TypicalP, EpsilonCutoff, EtaCutoff, TopH,
]  # fmt: skip
ADOPTERS = {twin: cls for cls in OURS for twin in cls.replaces}


class SeedNoise:
    """The noise of a call with a seed, a new one for each draw."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.keys = torch.arange(rows, device=device) * 0x9E3779B1
        self.step = torch.zeros(rows, dtype=torch.long, device=device)

    def exponential_at(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        if rows is None:
            return counter.exponential(self.keys, self.step, ids)
        return counter.exponential(self.keys[rows], self.step[rows], ids)


def make_scores(kind: str, rows: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rows, VOCAB, generator=generator)
    if kind == "normal":
        return (noise * 3).to(device)
    order = torch.rand(rows, VOCAB, generator=generator).argsort(-1)
    ranked = 18 - 1.6 * torch.arange(1, VOCAB + 1).log() + 0.5 * noise
    return ranked.gather(-1, order).bfloat16().float().to(device)


def adopt(twin: Any) -> genmode.LogitsProcessor:
    ours = ADOPTERS[type(twin).__name__].adopt(twin)
    if ours is None:
        raise ValueError(f"no equal of {type(twin).__name__}")
    return ours


def best_of(rounds: int, device: torch.device, *functions: Callable[[], Any]) -> list[float]:
    """Least milliseconds of each function, the functions taking turns."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    best = [float("inf")] * len(functions)
    for turn in range(rounds + 1):
        for place, function in enumerate(functions):
            # short calls are repeated, so that rare slow ones count
            repeat = 1 if turn == 0 else max(1, min(50, int(20 / best[place])))
            wait()
            start = time.perf_counter()
            for _ in range(repeat):
                function()
            wait()
            best[place] = min(best[place], (time.perf_counter() - start) * 1e3 / repeat)
    return best


def time_chain(twins: list[Any], scores: Tensor, rounds: int) -> list[float]:
    theirs_chain = transformers.LogitsProcessorList(twins)
    ours = [adopt(twin) for twin in twins]
    ids = torch.zeros(len(scores), 1, dtype=torch.long, device=scores.device)
    seeded = SeedNoise(len(scores), scores.device)
    history: Any = None

    def stock() -> Tensor:
        return torch.multinomial(theirs_chain(ids, scores).softmax(-1), 1)

    def on_generator() -> Tensor:
        return draw(ours, scores.clone(), history, GeneratorNoise())

    def on_seed() -> Tensor:
        seeded.step += 1
        return draw(ours, scores.clone(), history, seeded)

    return best_of(rounds, scores.device, stock, on_generator, on_seed)


def time_processor(twin: Any, scores: Tensor, rounds: int) -> list[float]:
    ours = adopt(twin)
    history: Any = None
    if isinstance(ours, Temperature):  # it writes in place: what it is given must not drift
        twin, ours = theirs.TemperatureLogitsWarper(1.0), Temperature(temperature=1.0)
    return best_of(rounds, scores.device, lambda: twin(None, scores), lambda: ours.process(scores, history))


def machine(device: torch.device) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "threads": torch.get_num_threads(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "genmode": genmode.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", action="store_true", help="keep the results that are there")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    chains: list[dict[str, Any]] = []
    processors: list[dict[str, Any]] = []
    print(f"{'scores':8} {'batch':>5} {'chain':38} {'stock ms':>9} {'generator':>17} {'seed':>17}")
    for kind in ("normal", "ranked"):
        for rows in options.batches:
            scores = make_scores(kind, rows, device)
            rounds = max(3, options.rounds // (4 if rows > 8 else 2 if rows > 1 else 1))
            for name, twins in CHAINS.items():
                stock, generator, seed = time_chain(twins, scores, rounds)
                chains.append({
                    "scores": kind, "batch": rows, "chain": name, "transformers ms": round(stock, 3),
                    "generator ms": round(generator, 3), "generator ratio": round(stock / generator, 2),
                    "seed ms": round(seed, 3), "seed ratio": round(stock / seed, 2),
                })  # fmt: skip
                print(
                    f"{kind:8} {rows:5} {name:38} {stock:9.2f} {generator:8.2f} {stock / generator:6.1f} x"
                    f" {seed:8.2f} {stock / seed:6.1f} x",
                    flush=True,
                )
    print(f"\n{'scores':8} {'batch':>5} {'processor':38} {'stock ms':>9} {'genmode':>17}")
    for kind in ("normal", "ranked"):
        for rows in options.batches:
            scores = make_scores(kind, rows, device)
            rounds = max(3, options.rounds // (4 if rows > 8 else 2 if rows > 1 else 1))
            for twin in PROCESSORS:
                stock, ours = time_processor(twin, scores, rounds)
                name = adopt(twin).name
                processors.append({
                    "scores": kind, "batch": rows, "processor": name, "transformers ms": round(stock, 3),
                    "genmode ms": round(ours, 3), "ratio": round(stock / ours, 2),
                })  # fmt: skip
                print(f"{kind:8} {rows:5} {name:38} {stock:9.3f} {ours:8.3f} {stock / ours:6.1f} x", flush=True)
    if not options.keep:
        found = {"machine": machine(device), "vocabulary": VOCAB, "chains": chains, "processors": processors}
        path = RESULTS / f"chain-{device.type}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
