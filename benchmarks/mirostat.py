"""How well mirostat holds its target surprise on SmolLM2-135M-Instruct.

    python benchmarks/mirostat.py --write benchmarks/results/mirostat.json
    python benchmarks/mirostat.py --modes 1 --eta 1.0 --write benchmarks/results/mirostat.json

Rows of different prompts are sampled at temperature 1, end of sequence suppressed. The surprise of a token is
-log2 of its probability under the model, before truncation. For each mode and target the table has the mean over
rows and tokens, the mean without the first 100 tokens, and the bound mu at the end, which tells what is left: since
mu moves by -eta (S - tau), the mean of S over n tokens is tau + (mu_0 - mu_n) / (eta n). A run is added to the file.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

import genmode
from genmode.cli import demo
from genmode_processors.truncation.mirostat import Mirostat

PROMPTS = (
    "The old lighthouse keeper", "In 1789, the city of", "To bake a good loaf of bread,", "Scientists were surprised when"
)  # fmt: skip


class Watched(Mirostat):
    """Mirostat that keeps its bounds after the call."""

    name = "watched"

    def reset(self) -> None:
        self.ends = self.bound.clone()
        super().reset()


def measure(model: Any, tokenizer: Any, tokens: int, tau: float, mode: int, eta: float, seed: int) -> dict[str, Any]:
    """One configuration: target and what was measured, in bits."""
    tokenizer.padding_side = "left"
    inputs = tokenizer(list(PROMPTS), return_tensors="pt", padding=True)
    mirostat = Watched(mirostat_mode=mode, mirostat_tau=tau, mirostat_eta=eta)
    ends = model.generation_config.eos_token_id
    out = genmode.generate(
        model, **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, seed=seed, processors=[mirostat],
        suppress_tokens=[ends] if isinstance(ends, int) else ends, max_new_tokens=tokens, min_new_tokens=tokens,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    chosen = out.sequences[:, inputs["input_ids"].shape[1] :]
    logits = torch.stack(out.logits, 1)
    logits[..., ends] = -torch.inf  # as the sampler saw them
    surprise = -logits.log_softmax(-1).gather(2, chosen[:, :, None])[:, :, 0] / torch.log(torch.tensor(2.0))
    return {
        "mode": mode, "tau": tau, "eta": eta, "mean": round(float(surprise.mean()), 3),
        "off %": round(100 * float(surprise.mean() / tau - 1), 1),
        "off % behind 100": round(100 * float(surprise[:, 100:].mean() / tau - 1), 1) if tokens > 100 else None,
        "off % of each row": [round(100 * float(x), 1) for x in surprise.mean(1) / tau - 1],
        "mu at the end": [round(float(x), 1) for x in mirostat.ends],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--taus", type=float, nargs="+", default=[2.0, 3.0, 4.0, 5.0])
    parser.add_argument("--eta", type=float, default=0.1)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    model, tokenizer = demo.load_demo()
    results: list[dict[str, Any]] = []
    for mode in given.modes:
        for tau in given.taus:
            results.append(measure(model, tokenizer, given.tokens, tau, mode, given.eta, given.seed))
            print(results[-1], flush=True)
    if given.write:
        where = {"torch": torch.__version__, "transformers": transformers.__version__, "machine": platform.machine()}
        report = {"tokens": given.tokens, "rows": len(PROMPTS), "seed": given.seed, **where, "results": results}
        runs = json.loads(given.write.read_text()) if given.write.exists() else []
        given.write.write_text(json.dumps([*runs, report], indent=1) + "\n")


if __name__ == "__main__":
    main()
