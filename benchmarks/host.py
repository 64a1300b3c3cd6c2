"""What 200 installed plugins cost: `genmode list`, the first look, and each call, against none; ratios from one run.

    python benchmarks/host.py [--plugins 200] [--repeats 25]

Plugins are distributions of one component each, written to a temporary folder; one in forty is broken. `list` is the
command in a fresh interpreter, with the environment's own packages. A call decodes 16 tokens with a Llama of two
layers of 32, so that the host's part is as large as it gets; both ways take turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import importlib_metadata
import torch
import transformers
from common import best_of, parser, save, table

import genmode
from genmode.plugins.registry import Registry, use

SOURCE = """
import genmode

class It(genmode.LogitsProcessor):
    contract_version = {contract}

    class Params(genmode.Params):
        plug_{n}_strength: float = 0.0

    def process(self, scores, history):
        return scores
"""
LIST = "import sys; from genmode.cli import main; sys.argv = ['genmode', 'list']; main()"


def install(folder: Path, count: int) -> None:
    """Write `count` distributions; every fortieth names no module, is of another contract, or is malformed."""
    for n in range(count):
        info = folder / f"plug_{n}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug-{n}\nVersion: 1.0\n")
        fault = n // 40 % 3 if n % 40 == 0 else None
        value = "not an object" if fault == 2 else f"plug_{n}:It"
        (info / "entry_points.txt").write_text(f"[genmode.processors]\nplug_{n} = {value}\n")
        if fault != 0:
            (folder / f"plug_{n}.py").write_text(SOURCE.format(n=n, contract=99 if fault == 1 else 1))


def run_list(folder: Path | None) -> None:
    """Run `genmode list` in a fresh interpreter."""
    path = os.pathsep.join([*([str(folder)] if folder else []), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", LIST], env=environment, check=True, capture_output=True)


def processor_seconds(run: Callable[[], object], repeats: int) -> float:
    """Least processor time of the children that `run` starts; unlike wall time not that of others on the machine."""
    best = float("inf")
    for _ in range(repeats):
        before = os.times()
        run()
        after = os.times()
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    return best


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--plugins", type=int, default=200)
    arguments.set_defaults(repeats=25)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(5, 95, (1, 9))
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False},
        "sample, top-p": {"do_sample": True, "top_p": 0.9},
        "named strategy and processor": {"strategy": "sample", "processors": ["min_p"], "min_p": 0.05},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder, options.plugins)
        sys.path.append(name)
        own = importlib_metadata.distribution("genmode")
        settings = genmode.Settings()
        none = Registry([own], settings)
        many = Registry([own, *importlib_metadata.distributions(path=[name])], settings)

        to_list = {"none": lambda: run_list(None), "many": lambda: run_list(folder)}
        turns = max(5, options.repeats // 2)
        listed = [
            {"genmode list": "wall time", **_ratio(best_of(to_list, turns))},
            {
                "genmode list": "processor time",
                **_ratio({n: processor_seconds(run, turns) for n, run in to_list.items()}),
            },
        ]
        table(f"genmode list, ms; {options.plugins} plugins", listed)

        def call(registry: Registry, flags: dict[str, Any]) -> None:
            with use(registry):
                for _ in range(10):
                    genmode.generate(model, ids, max_new_tokens=16, **flags)

        calls: list[dict[str, Any]] = []
        for way, flags in ways.items():
            cases = {"none": lambda f=flags: call(none, f), "many": lambda f=flags: call(many, f)}
            calls.append({"call": way, **_ratio(best_of(cases, options.repeats), 10)})
        table(f"genmode.generate, ms a call; {options.plugins} plugins", calls)
    save(options.out / "host.json", {"plugins": options.plugins, "list": listed, "calls": calls})


def _ratio(best: dict[str, float], calls: int = 1) -> dict[str, float]:
    return {
        "without plugins ms": round(1e3 * best["none"] / calls, 3),
        "with plugins ms": round(1e3 * best["many"] / calls, 3),
        "ratio": round(best["many"] / best["none"], 3),
    }


if __name__ == "__main__":
    main()
