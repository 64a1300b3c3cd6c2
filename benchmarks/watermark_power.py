"""How well each watermark is found in SmolLM2's text, what it costs, and what survives edits.

    python benchmarks/watermark_power.py [--rows 64] [--texts FILE] [--docs FILE] [--out FOLDER]

Every scheme continues the same prompts by 200 tokens, sampled at temperature 0.7 and at 1 without truncation, and the
detector reads the first 50, 100 and 200 of them: the share that is found at 1% false positives. `--texts` keeps the
texts in a file, and takes from it those that are there; all that follows is made anew.

Perplexity is that of the model itself at temperature 1, with the prompt. False positives are counted on the unmarked
texts, each read under keys of its own until there are at least 1,000 readings. Edits delete or replace 10% of the
tokens, at random places; a replacement is a random token of the unmarked texts. SWEET and EWD read the model's
predictions with the prompt; for edited texts they run the model on half of the rows.

The closed form is computed at temperature 1 from what the model predicted for the unmarked texts, and takes the sum as
normal. Gumbel: a token of probability p that was drawn has evidence of mean psi(1 + 1/p) - psi(1) and variance
pi^2 / 6 - psi'(1 + 1/p). KGW: by theorem 4.2 of Kirchenbauer et al. 2023 a
step of spike entropy S is green with probability at least gamma a S / (1 + (a - 1) gamma), a = exp(bias), which gives
a lower bound. Tokens that repeat a draw are not taken off.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import parser, save, table, write_tables
from torch import Tensor

import genmode
from genmode.cli.demo import load_demo
from genmode.watermark import Bernoulli, Exponential, judge
from genmode.watermark.detection import read_statistic

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
            self.rows[name].append(reader.statistic(scores))
        return scores

    def accept(self, tokens: Tensor) -> None:
        self.rows["log_share"].append(self.logs.gather(1, tokens[:, None])[:, 0])

    def result(self) -> dict[str, Tensor]:
        return {name: torch.stack(steps, 1) for name, steps in self.rows.items() if steps}


def config(name: str, key: int, **more: Any) -> genmode.WatermarkingConfig:
    return genmode.WatermarkingConfig(name, key=key, **{**SCHEMES[name], **more})


def generate(
    model: Any, tokenizer: Any, rows: int, kept: Path | None, temperatures: tuple[float, ...] = TEMPERATURES
) -> dict[str, Any]:
    """All texts: by scheme and temperature, tokens `[rows, 200]` and what the observer kept."""
    prompts = [opening.format(subject) for opening in OPENINGS for subject in SUBJECTS][:rows]
    if rows > len(prompts):
        raise SystemExit(f"--rows {rows} is not allowed; there are {len(prompts)} prompts")
    tokenizer.padding_side = "left"
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    texts: dict[str, Any] = torch.load(kept) if kept is not None and kept.exists() else {"prompts": prompts}
    if texts["prompts"] != prompts:
        raise SystemExit(f"{kept} has texts of {len(texts['prompts'])} prompts; give --rows {len(texts['prompts'])}")
    for temperature in reversed(temperatures):
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


def found(name: str, tokens: Tensor, statistic: Tensor | None, key: int, vocab: int) -> list[genmode.Detection]:
    more = {"vocab_size": vocab} if name == "kgw" else {}
    return judge(config(name, key, **more).build(), tokens, statistic, FPR)


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
    arguments.add_argument("--docs", type=Path, help="page whose tables are written anew")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_demo()
    texts = generate(model, tokenizer, options.rows, options.texts)
    report(options, model, tokenizer, texts)


def predicted(name: str, plain: dict[str, Tensor], length: int) -> float | None:
    """The closed form's share of texts that are found, at temperature 1; None where there is none."""
    if name == "gumbel":
        odds = (-plain["log_share"][:, :length].double()).exp()  # 1 / p
        mean = (torch.special.digamma(1 + odds) + 0.5772156649015329).sum(1)
        variance = (math.pi**2 / 6 - torch.special.polygamma(1, 1 + odds)).sum(1)
        low, high = float(length), 4.0 * length
        for _ in range(60):
            middle = (low + high) / 2
            sums = torch.full((length,), middle / length, dtype=torch.float64)
            low, high = (middle, high) if Exponential().tail(sums, None) > FPR else (low, middle)
        return float(torch.special.ndtr((mean - high) / variance.sqrt()).mean())
    if name == "kgw":
        gamma, gain = SCHEMES[name]["greenlist_ratio"], math.exp(SCHEMES[name]["bias"])
        green = (gamma * gain / (1 + (gain - 1) * gamma) * plain["ewd"][:, :length].double()).clamp(max=1)
        ones = torch.ones(length, dtype=torch.float64)
        least = next(
            k for k in range(length + 1) if Bernoulli(gamma).tail(ones * (torch.arange(length) < k), None) <= FPR
        )
        spread = (green * (1 - green)).sum(1).sqrt()
        return float(torch.special.ndtr((green.sum(1) - least + 0.5) / spread).mean())
    return None


def false_positives(name: str, texts: dict[str, Any], vocab: int) -> tuple[int, int]:
    """How many readings of unmarked texts say that there is a mark, and of how many."""
    wrong = total = 0
    for temperature in TEMPERATURES:
        plain = texts[f"None {temperature}"]
        rows = len(plain["tokens"])
        for number in range(math.ceil(READINGS / rows / len(TEMPERATURES))):
            for row in range(rows):
                key = 10**6 * (number + 1) + 1000 * int(10 * temperature) + row
                statistic = plain[name][row : row + 1] if name in plain else None
                one = found(name, plain["tokens"][row : row + 1], statistic, key, vocab)[0]
                wrong, total = wrong + bool(one.marked), total + 1
    return wrong, total


def report(options: argparse.Namespace, model: Any, tokenizer: Any, texts: dict[str, Any]) -> None:
    vocab = int(model.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    heads = tokenizer(texts["prompts"])["input_ids"]
    rows: list[dict[str, Any]] = []
    rates: list[dict[str, Any]] = []
    for name in SCHEMES:
        wrong, total = false_positives(name, texts, vocab)
        rates.append({"scheme": name, "readings": total, "called marked": wrong, "share": wrong / total})
        for temperature in TEMPERATURES:
            mine, plain = texts[f"{name} {temperature}"], texts[f"None {temperature}"]
            row: dict[str, Any] = {"scheme": name, "temperature": temperature}
            for length in LENGTHS:
                statistic = mine[name][:, :length] if name in mine else None
                row[f"{length} tokens"] = share(found(name, mine["tokens"][:, :length], statistic, KEY, vocab))
            closed = [predicted(name, plain, length) for length in LENGTHS] if temperature == 1 else []
            row["closed form"] = " / ".join(f"{value:.3f}" for value in closed if value is not None)
            row["perplexity"] = math.exp(-float(mine["log_share"].mean()))
            row["unmarked"] = math.exp(-float(plain["log_share"].mean()))
            for how in ("delete", "replace"):
                changed = edited(mine["tokens"], plain["tokens"], how, generator)
                statistic = None
                if name in mine:
                    changed = changed[: len(changed) // 2]
                    reader = config(name, KEY).build()
                    parts = [
                        read_statistic(reader, model, some, heads[i : i + len(some)])
                        for i in range(0, len(changed), 8)
                        for some in (changed[i : i + 8],)
                    ]
                    statistic = torch.cat(parts)
                row[f"{how} 10%"] = share(found(name, changed, statistic, KEY, vocab))
            rows.append(row)
            print(row, flush=True)
    table("found at 1% false positives", rows)
    table("text that is not marked", rates)
    size = len(texts["None 1.0"]["tokens"])
    save(options.out / "watermark-power.json", {"texts of each kind": size, "found": rows, "unmarked": rates})
    if options.docs is not None:
        write_tables(options.docs, {"power": rows, "rates": rates})


if __name__ == "__main__":
    main()
