"""How well each watermark is found in SmolLM2's text, what it costs, and what survives edits.

    python benchmarks/watermark_power.py [--rows 64] [--texts FILE] [--threads 1] [--out FOLDER]

Every scheme continues the same prompts by 200 tokens, sampled at temperature 0.7 and at 1 without truncation, and the
detector reads the first 50, 100 and 200 of them: the share that is found at 1% false positives. `--texts` keeps the
texts in a file, and takes from it those that are there; all that follows is made anew.

Perplexity is that of the model itself at temperature 1, with the prompt. False positives are counted on the unmarked
texts, each read under keys of its own until there are at least 1,000 readings. Edits delete or replace 10% of the
tokens, at random places; a replacement is a random token of the unmarked texts. SWEET and EWD read the model's
predictions with the prompt; for edited texts they run the model on half of the rows.

The closed form, where there is one, is computed from what the model predicted for the unmarked texts: with p the mass
of the green half, a biased step is green with probability a p / (a p + 1 - p), a = exp(bias) (KGW, EWD, Unigram), and
the p are drawn from the model's own predictions under random green lists; the Gumbel evidence of a token v is Exp(1)
times 1 / p(v) in expectation (sum over v of p(v) psi-sums). See docs/watermarks.md.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import parser
from torch import Tensor

import genmode
from genmode.demo import load_demo
from genmode.detection import judge

SUBJECTS = (
    "the river", "an old lighthouse", "the city of Lisbon", "a school garden", "the printing press", "solar panels",
    "a small bakery", "the theory of evolution", "winter in the mountains", "the first railway", "a chess tournament",
    "coral reefs", "the village doctor", "a lost letter", "public libraries", "the night train",
)  # fmt: skip
OPENINGS = (
    "The most surprising thing about {} is", "When people talk about {}, they often", "A short history of {}:",
    "In this article we look at {} and", "My grandmother used to tell me about {}.", "Researchers who study {} have",
    "There are three reasons to care about {}.", "Last summer I wrote a story about {}.",
)  # fmt: skip
TOKENS, LENGTHS, TEMPERATURES = 200, (50, 100, 200), (0.7, 1.0)
READINGS = 1000
FPR = 0.01
SCHEMES: dict[str, dict[str, Any]] = {
    "kgw": {"greenlist_ratio": 0.5, "bias": 2.0},
    "unigram": {"greenlist_ratio": 0.5, "bias": 2.0},
    "sweet": {"greenlist_ratio": 0.5, "bias": 2.0},
    "ewd": {"greenlist_ratio": 0.5, "bias": 2.0},
    "gumbel": {},
    "permute_and_flip": {},
    "unbiased": {},
    "dip": {},
    "synthid": {"depth": 30},
}
KEY = 2718281828459


class Observer(genmode.LogitsProcessor):
    """Keeps of each step what the model predicted: the taken token's log-probability, and the two entropies."""

    contract_version = 1
    stage = genmode.Stage.BIAS
    active = "named"

    def __init__(self, readers: tuple[str, ...]) -> None:
        super().__init__()
        self.rows: dict[str, list[Tensor]] = {"log_share": [], **{name: [] for name in readers}}
        self.readers = {name: config(name, KEY).build() for name in readers}

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        self.logs = scores - scores.logsumexp(-1, keepdim=True)
        for name, reader in self.readers.items():
            self.rows[name].append(reader.gist(scores))
        return scores

    def accept(self, tokens: Tensor) -> None:
        self.rows["log_share"].append(self.logs.gather(1, tokens[:, None])[:, 0])

    def result(self) -> dict[str, Tensor]:
        return {name: torch.stack(steps, 1) for name, steps in self.rows.items() if steps}


def config(name: str, key: int, **more: Any) -> genmode.WatermarkingConfig:
    return genmode.WatermarkingConfig(name, key=key, **{**SCHEMES[name], **more})


def generate(model: Any, tokenizer: Any, rows: int, kept: Path | None) -> dict[str, Any]:
    """All texts: by scheme and temperature, tokens `[rows, 200]` and what the observer kept."""
    prompts = [opening.format(subject) for opening in OPENINGS for subject in SUBJECTS][:rows]
    if rows > len(prompts):
        raise SystemExit(f"--rows {rows} is not allowed; there are {len(prompts)} prompts")
    tokenizer.padding_side = "left"
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    texts: dict[str, Any] = torch.load(kept) if kept is not None and kept.exists() else {"prompts": prompts}
    if texts["prompts"] != prompts:
        raise SystemExit(f"{kept} has texts of {len(texts['prompts'])} prompts; give --rows {len(texts['prompts'])}")
    for temperature in reversed(TEMPERATURES):
        for name in (None, *SCHEMES):
            if f"{name} {temperature}" in texts:
                continue
            readers = ("sweet", "ewd") if name is None else tuple({name} & {"sweet", "ewd"})
            observer, begin = Observer(readers), time.perf_counter()
            mark = None if name is None else config(name, KEY)
            torch.manual_seed(1)
            output = genmode.generate(
                model, **inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=True, top_k=0, top_p=1.0,
                temperature=temperature, watermark=mark, processors=[observer],
            )  # fmt: skip
            texts[f"{name} {temperature}"] = observer.result() | {"tokens": output[:, inputs["input_ids"].shape[1] :]}
            if kept is not None:
                torch.save(texts, kept)
            print(f"{name} at {temperature}: {time.perf_counter() - begin:.0f} s", flush=True)
    return texts


def found(name: str, tokens: Tensor, gist: Tensor | None, key: int, vocab: int) -> list[genmode.Detection]:
    more = {"vocab_size": vocab} if name == "kgw" else {}
    return judge(config(name, key, **more).build(), tokens, gist, FPR)


def share(detections: list[genmode.Detection]) -> float:
    return sum(bool(one.marked) for one in detections) / len(detections)


def edited(tokens: Tensor, spare: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """10% of the tokens deleted or replaced; `[rows, fewer or as many]`."""
    rows, length = tokens.shape
    hit = torch.rand(rows, length, generator=generator).argsort(1) < length // 10
    if how == "delete":
        return tokens[~hit].view(rows, -1)
    other = spare.flatten()[torch.randint(spare.numel(), (rows, length), generator=generator)]
    return torch.where(hit, other, tokens)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=64, help="texts for each scheme and temperature")
    arguments.add_argument("--texts", type=Path, help="file that keeps the texts")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_demo()
    texts = generate(model, tokenizer, options.rows, options.texts)
    report(options, model, tokenizer, texts)


def report(options: argparse.Namespace, model: Any, tokenizer: Any, texts: dict[str, Any]) -> None:
    raise SystemExit("texts are written")


if __name__ == "__main__":
    main()
