"""The cost of decoding on a CUDA device, against transformers, a bare replayed forward, and the memory floor.

    python benchmarks/gpu.py                    greedy search, sampling and beams beside their forwards and the floor
    python benchmarks/gpu.py further            the other strategies
    python benchmarks/gpu.py compiled           the compiled tier
    python benchmarks/gpu.py transformers       beside transformers' generate
    python benchmarks/gpu.py growth             host work, memory, and what grows with what

A random Llama of 1.24 B parameters in bfloat16, prompt 128, 256 new tokens. The floor is the time in which the
device reads the weights once, at the rate at which it copies memory. All figures of a file come from one run.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from common import parser, plot, save, table
from transformers import LlamaConfig, LlamaForCausalLM

import genmode
from genmode.cuda.kernels import build as kernels

PROMPT, STEPS = 128, 256
SAMPLE = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9}
CASES: dict[str, dict[str, Any]] = {"greedy_search": {}, "sample": SAMPLE, "beam_search, 4 beams": {"num_beams": 4}}
FURTHER: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "beam_sample, 4 beams": ({"num_beams": 4, "do_sample": True}, (4, 1, 0)),
    "group_beam_search, 4 beams in 2": ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, (4, 1, 0)),
    "contrastive_search, 4 candidates": ({"penalty_alpha": 0.6, "top_k": 4}, (1, 4, 0)),
    "dola_generation, low": ({"dola_layers": "low", "repetition_penalty": 1.2}, (1, 1, 3)),
    "prompt_lookup, 4 tokens": ({"prompt_lookup_num_tokens": 4}, (1, 5, 0)),
    "entropy_gate (example plugin)": ({"strategy": "entropy_gate"}, (1, 1, 0)),
}
"""Flags; rows for each input, tokens a row and further products with the head in one forward. Rows of `prompt_lookup`
take up to 5 tokens a forward; DoLa reads the vocabulary off three more layers."""


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
    """Best of `repeats` after one warm-up and the kernels that it began to build, and the warm-up itself."""

    def once() -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    first = once()
    for kind in ("attention", "softmax", "select"):
        kernels.wait(kind)
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


class Forwards(genmode.Strategy):
    """Times forwards of `width` tokens a row behind the prompt, and nothing else; looks beneath the contract for that.

    `heads`: how often the model's head is applied beside, to states of as many rows at once.
    """

    contract_version = 1
    needs = frozenset({genmode.Need.ROLLBACK})
    milliseconds = 0.0

    class Params(genmode.Params):
        width: int = 1
        heads: int = 0

    def decode(self, session: Any, params: Any) -> None:
        next(session.steps())
        engine = session._state.engine
        tokens = session.history.tokens[:, : params.width].contiguous()
        head = session.model.get_output_embeddings()
        states = torch.zeros(params.heads, session.rows, head.in_features, dtype=session.model.dtype, device="cuda")

        def run(times: int) -> None:
            for _ in range(times):
                engine.forward(tokens)
                if params.heads:
                    head(states)
                engine.rewind(params.width)

        run(3)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run(100)
        end.record()
        end.synchronize()
        Forwards.milliseconds = begin.elapsed_time(end) / 100


def forward(model: Any, rows: int, width: int, heads: int, **flags: Any) -> float:
    """Milliseconds of one captured forward of `width` tokens a row."""
    ids = ids_of(rows, vocabulary=model.config.vocab_size - 8)
    genmode.generate(model, ids, strategy="forwards", width=width, heads=heads, max_new_tokens=STEPS, **flags)
    return Forwards.milliseconds


def line(
    model: Any, name: str, rows: int, flags: dict[str, Any], least: float, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """One strategy: the whole call, a step behind the prompt, and what the forwards of its shape take."""
    step, first = ours(model, rows, flags)
    begin, _ = ours(model, rows, flags, 2)
    behind = (step * STEPS - begin * 2) / (STEPS - 2)
    alone = forward(model, *shape, **({"compile": True} if "compile" in flags else {}))
    return {
        "strategy": name, "batch": rows, "ms/step": step, "/ floor": step / least, "step behind the prompt": behind,
        "its / floor": behind / least, "forward alone": alone, "more than it": behind - alone, "first s": first,
    }  # fmt: skip


def peak(run: Callable[[], object]) -> float:
    """Most memory taken beyond what was taken before, in MB."""
    run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def growth(model: Any, least: float) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Milliseconds a step against rows, context and vocabulary, prefill taken off."""

    def cost(of: Any, rows: int, flags: dict[str, Any], length: int = PROMPT) -> float:
        step, _ = ours(of, rows, flags, 66, length)
        begin, _ = ours(of, rows, flags, 2, length)
        return (step * 66 - begin * 2) / 64

    panels: dict[str, dict[str, list[tuple[float, float]]]] = {"rows": {}, "tokens of context": {}, "vocabulary": {}}
    for name, flags in list(CASES.items())[:2]:
        panels["rows"][name] = [(rows, cost(model, rows, flags)) for rows in (1, 4, 16, 64)]
        panels["tokens of context"][name] = [(n, cost(model, 1, flags, n)) for n in (128, 1024, 4096, 8192)]
    for vocabulary in (32000, 64000, 128256, 256000):
        small = llama(num_hidden_layers=2, vocab_size=vocabulary)
        for name, flags in list(CASES.items())[:2]:
            panels["vocabulary"].setdefault(name, []).append((vocabulary, cost(small, 1, flags)))
        del small
    return panels


def against(model: Any, least: float) -> list[dict[str, Any]]:
    """Milliseconds a step of whole calls, genmode's and transformers' in turn."""
    rows: list[dict[str, Any]] = []
    for batch, (name, flags) in itertools.product((1, 8), CASES.items()):
        mine, default = ours(model, batch, flags)[0], theirs(model, batch, flags)
        row = {"strategy": name, "batch": batch, "genmode": mine, "transformers": default, "ratio": default / mine}
        static: dict[str, Any] = {"static, compiled": "", "ratio to static": ""}
        if batch == 1 and "num_beams" not in flags:
            best = theirs(model, batch, flags | {"cache_implementation": "static"})
            static = {"static, compiled": best, "ratio to static": best / mine}
        rows.append(row | static)
    return rows


def main() -> None:
    """Measure one group, print tables, write JSON and plots after each part."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("group", nargs="?", choices=list(GROUPS), default="strategies")
    options = arguments.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    genmode.register(Forwards)
    model = llama()
    results: dict[str, Any] = {"floor": floor(model)}
    table("Floor", [results["floor"]])
    for key, title, measure in GROUPS[options.group]:
        results[key] = measure(model, results["floor"]["floor ms"])
        save(options.out / f"gpu-{options.group}.json", results)
        if key == "growth_ms_per_step":
            plot(options.out / "gpu-growth.png", results[key], "ms a step")
        else:
            table(title, results[key])


def strategies(model: Any, least: float) -> list[dict[str, Any]]:
    """Greedy search, sampling and beams."""
    return [
        line(model, name, batch, flags, least, (batch * flags.get("num_beams", 1), 1, 0))
        for batch in (1, 8) for name, flags in CASES.items()
    ]  # fmt: skip


def further(model: Any, least: float) -> list[dict[str, Any]]:
    """All others."""
    return [
        line(model, name, batch, flags, least, (batch * beams, width, heads))
        for batch in (1, 8) for name, (flags, (beams, width, heads)) in FURTHER.items()
    ]  # fmt: skip


def compiled(model: Any, least: float) -> list[dict[str, Any]]:
    """Greedy search and sampling on the compiled tier."""
    return [
        line(model, name, 1, flags | {"compile": True}, least, (1, 1, 0)) for name, flags in list(CASES.items())[:2]
    ]


def host_work(model: Any, least: float) -> list[dict[str, Any]]:
    """What is not the device's: each strategy on a model of one tiny layer in place of `model`."""
    model = llama(
        vocab_size=1000, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1,
    )  # fmt: skip
    shown = ("strategy", "batch", "ms/step", "step behind the prompt", "forward alone")
    return [{key: one[key] for key in shown} for one in strategies(model, least)]


def memory(model: Any, least: float) -> list[dict[str, Any]]:
    """The most that a call takes, by genmode and by transformers."""
    ids = ids_of(8)
    runs = {"genmode": genmode.generate, "transformers": lambda m, i, **flags: m.generate(i, **flags)}
    return [
        {"by": name, "MB": peak(lambda run=run: run(model, ids, max_new_tokens=STEPS))} for name, run in runs.items()
    ]


GROUPS: dict[str, list[tuple[str, str, Callable[[Any, float], Any]]]] = {
    "strategies": [("strategies", "Strategies, nothing compiled", strategies)],
    "further": [("further", "Further strategies, nothing compiled", further)],
    "compiled": [("compiled", "Compiled tier", compiled)],
    "transformers": [("transformers", "Against transformers' generate, ms a step", against)],
    "growth": [
        ("host", "Host work: the same on a model that costs the device next to nothing", host_work),
        ("memory", "Memory taken by a call of 8 rows, 128 + 256 tokens", memory),
        ("growth_ms_per_step", "Growth", growth),
    ],
}
"""By name: key of the results, title, and what measures it, given the model and the floor in ms."""


if __name__ == "__main__":
    main()
