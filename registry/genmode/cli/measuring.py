"""What a step of decoding costs on a model: strategies, transformers' own loop and a bare loop of forwards, in turns.

A machine is never equally fast twice, so all cases take turns and the best round of each counts; read the ratios.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import api, tracing
from ..errors import ParameterError
from ..hf import caches, generate

BARE, TRANSFORMERS = "bare loop", "transformers, greedy"


@dataclass(frozen=True)
class Case:
    """One thing to be measured.

    Attributes:
        name: as the table calls it.
        run: decodes once.
        steps: how many steps that takes; a step is one forward and what follows it.
        tokens: how many tokens the longest row gets.
        engine: how forwards run.
    """

    name: str
    run: Callable[[], object]
    steps: int
    tokens: int
    engine: str = ""


def cases(model: Any, rows: int, length: int, count: int, calls: Mapping[str, Mapping[str, Any]]) -> list[Case]:
    """What is to be measured on a decoder-only model; each call runs once, to count its steps.

    Args:
        model: on its device. Its end of sequence is taken away, so that every case decodes as many tokens.
        rows: how many prompts.
        length: tokens of each prompt, drawn at random.
        count: tokens to decode.
        calls: by name, further arguments of `genmode.generate`.

    Raises:
        ParameterError: the model has an encoder, or no cache; or what the call raises.
    """
    if model.config.is_encoder_decoder:
        raise ParameterError(
            f"{type(model).__name__} is an encoder-decoder model, and bench measures decoder-only ones; give another --model"
        )
    model.generation_config.eos_token_id = None
    words = int(model.config.get_text_config(decoder=True).vocab_size)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(words, (rows, length), generator=generator).to(model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plain = {**inputs, "max_new_tokens": count, "do_sample": False, "num_beams": 1, "pad_token_id": 0}
    found = [
        Case(BARE, lambda: bare(model, ids, count), count, count),
        Case(TRANSFORMERS, lambda: generate.plain_generate(model)(**plain), count, count),
    ]
    return found + [_counted(name, model, {**inputs, "pad_token_id": 0, **call}) for name, call in calls.items()]


def _counted(name: str, model: Any, call: Mapping[str, Any]) -> Case:
    with tracing.trace() as traced:
        output: Any = api.generate(model, **call)
    sequences: Tensor = getattr(output, "sequences", output)
    (told,) = traced.calls
    tokens = sequences.shape[1] - call["input_ids"].shape[1]
    return Case(name, lambda: api.generate(model, **call), told.steps, tokens, told.engine)


def bare(model: Any, ids: Tensor, count: int) -> None:
    """Greedy search with nothing around it: a forward, the best token, the cache that the model makes itself."""
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=True)
        name = next((one for one in caches.CACHE_NAMES if output.get(one) is not None), None)
        if name is None:
            raise ParameterError(f"{type(model).__name__} returns no cache, and has no bare loop to compare with")
        for _ in range(count - 1):
            token = output.logits[:, -1].argmax(-1)  # [rows]
            output = model(input_ids=token[:, None], use_cache=True, **{name: output[name]})


def best_of(found: list[Case], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each case: the best of `repeats` rounds in which all take turns, behind one that warms up."""
    best = [float("inf")] * len(found)
    for turn in range(repeats + 1):
        for index, case in enumerate(found):
            _settle(device)
            begin = time.perf_counter()
            case.run()
            _settle(device)
            if turn:
                best[index] = min(best[index], time.perf_counter() - begin)
    return best


def _settle(device: torch.device) -> None:
    """Wait for what the device has queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def figures(found: list[Case], seconds: list[float]) -> list[dict[str, Any]]:
    """A row for each case: milliseconds a step and a token, and how often as long a token takes as elsewhere."""
    each = [1e3 * one / case.tokens for case, one in zip(found, seconds, strict=True)]
    names = [case.name for case in found]
    loop, theirs = each[names.index(BARE)], each[names.index(TRANSFORMERS)]
    return [
        {
            "name": case.name, "ms_a_step": 1e3 * one / case.steps, "ms_a_token": token, "to_bare_loop": token / loop,
            "to_transformers": token / theirs, "steps": case.steps, "tokens": case.tokens, "engine": case.engine,
        }
        for case, one, token in zip(found, seconds, each, strict=True)
    ]  # fmt: skip


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what figures were taken."""
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "genmode")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # of Linux alone
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
