"""What the tests of the generation config share: a component of each kind, registered, and the file of a saved config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
from transformers import LlamaConfig

import genmode
from genmode.plugins.registry import Registry


class Xtc(genmode.LogitsProcessor):
    contract_version = 1

    class Params(genmode.Params):
        xtc_probability: float = pydantic.Field(0.0, ge=0, le=1)
        xtc_threshold: float = pydantic.Field(0.1, ge=0)
        xtc_key: int = 0

    def process(self, scores: Any, history: Any) -> Any:
        return scores


class Power(genmode.Strategy):
    contract_version = 1

    class Params(genmode.Params):
        power_alpha: float = pydantic.Field(4.0, gt=1)
        temperature: float = pydantic.Field(1.0, lt=5)

    def decode(self, session: Any, params: Any) -> None: ...


class Stopper(genmode.StoppingCriterion):
    contract_version = 1

    def check(self, history: Any) -> Any: ...


class Kgw(genmode.Watermarker):
    contract_version = 1

    class Params(genmode.Params):
        bias: float = pydantic.Field(2.0, gt=0)
        key: int

    def process(self, scores: Any, history: Any) -> Any:
        return scores

    def evidence(self, tokens: Any, statistic: Any) -> Any: ...

    def null(self) -> Any: ...


def register_all(host: Registry) -> None:
    """One component of each kind."""
    for component in (Xtc, Power, Stopper, Kgw):
        host.register(component)


def saved(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "generation_config.json").read_text())
    return data


def model_config(**extra: Any) -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaConfig(vocab_size=99, **sizes, **extra)
