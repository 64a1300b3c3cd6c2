"""The models that calls run on, each made once a process, and the objects that a call names instead of holding them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

import genmode
from genmode.testing.harness.models import SPECIAL, TEXT, VOCAB, fresh, tokenizer

DTYPES = ("float32", "float16", "bfloat16")
WINDOW = 6


def _mistral() -> Any:
    """Attention that sees a few tokens back."""
    config = transformers.MistralConfig(**{**TEXT, **SPECIAL, "sliding_window": WINDOW})
    return transformers.MistralForCausalLM(config)


def _mixtral() -> Any:
    """Four experts, of which each token takes two."""
    config = transformers.MixtralConfig(**{**TEXT, **SPECIAL, "num_local_experts": 4, "num_experts_per_tok": 2})
    return transformers.MixtralForCausalLM(config)


_FURTHER: Mapping[str, Callable[[], Any]] = {"mistral": _mistral, "mixtral": _mixtral}
FAMILIES = ("llama", "gpt2", "t5", "mamba", *_FURTHER)


def _built(family: str) -> Any:
    if family not in _FURTHER:
        return fresh(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _FURTHER[family]().eval()


class Pair:
    """A family's model and one with every weight a little off, in evaluation mode, and what they are like."""

    def __init__(self, family: str, dtype: str) -> None:
        self.model, self.near = (_built(family).to(getattr(torch, dtype)) for _ in range(2))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.near.parameters():
                weight.add_(0.02 * torch.randn(weight.shape, generator=generator).to(weight.dtype))
        self.made = copy.deepcopy(self._seen())

    def changed(self) -> str:
        """What is no longer as it was made; "" if all is."""
        return " ".join(name for name, value in self._seen().items() if value != self.made[name])

    def _seen(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, one in (("model", self.model), ("assistant", self.near)):
            seen[f"{name}.config"] = vars(one.config)
            seen[f"{name}.generation_config"] = vars(one.generation_config)
            seen[f"{name}.modules"] = [(id(module), module.training) for module in one.modules()]
        return seen


_PAIRS: dict[tuple[str, str, bool], Pair] = {}


def pair(family: str, dtype: str, stock: bool = False) -> Pair:
    """The models of a family, made once: genmode's, or others for transformers' own `generate`, which may change them."""
    key = (family, dtype, stock)
    if key not in _PAIRS:
        _PAIRS[key] = Pair(family, dtype)
    return _PAIRS[key]


def renew(family: str, dtype: str, stock: bool = False) -> None:
    """Have the models made again where they are next asked for."""
    del _PAIRS[family, dtype, stock]


def allow_even(row: int, tokens: Tensor) -> list[int]:
    """Tokens of even number: transformers' `prefix_allowed_tokens_fn`."""
    return list(range(4, VOCAB, 2))


def double(input_ids: Tensor, scores: Tensor) -> Tensor:
    """A processor of a caller's own."""
    return scores * 2


def stop_on_sevens(history: Any) -> Tensor:
    """A criterion of a caller's own."""
    return history.tail(1)[:, 0] % 7 == 0


def prefer_evens(texts: list[Tensor]) -> list[float]:
    """A scorer of a caller's own: the share of even tokens."""
    return [float((ids % 2 == 0).float().mean()) for ids in texts]


class Named:
    """An object that no line of Python spells, by its name; `Named("near")`."""

    OBJECTS: Mapping[str, Callable[[Pair, int], Any]] = {
        "near": lambda pair, rows: pair.near,
        "tokenizer": lambda pair, rows: tokenizer(),
        "allow_even": lambda pair, rows: allow_even,
        "double": lambda pair, rows: double,
        "stop_on_sevens": lambda pair, rows: stop_on_sevens,
        "prefer_evens": lambda pair, rows: genmode.Scoring(prefer_evens, reads_ids=True),
        "other_prompt": lambda pair, rows: torch.tensor([[5, 9, 7]]).repeat(rows, 1),
        "nothing": lambda pair, rows: torch.zeros(0, dtype=torch.long),
        "object": lambda pair, rows: object(),
    }
    """By name, from the models and the rows of the call."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Named({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def found(self, pair: Pair, rows: int) -> Any:
        """The object."""
        return self.OBJECTS[self.name](pair, rows)
