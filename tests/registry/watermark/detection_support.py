"""What the tests of detection share: two schemes checkable by hand, and configurations of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genmode
from genmode.plugins.registry import Registry
from genmode.watermark import Bernoulli

KEY = 987654321


class Parity(genmode.Watermarker):
    """A toy of a third party: a token is green if it has the key's parity; every token is a draw of its own."""

    contract_version = 1

    class Params(genmode.Params):
        key: int
        separate: bool = True
        vocab_size: int | None = None

    def process(self, scores: Tensor, history: Any) -> Tensor:
        return scores

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        values = ((tokens + self.params.key) % 2).double().masked_fill(tokens == 99, torch.nan)
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        return genmode.Evidence(values, places if self.params.separate else tokens)

    def null(self) -> genmode.Null:
        return Bernoulli(0.5)


class Reader(Parity):
    """Counts what the model was unsure of."""

    traits = frozenset({genmode.Trait.READS_MODEL})

    def statistic(self, logits: Tensor) -> Tensor:
        return logits.amax(-1)

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        values, draws, _ = super().evidence(tokens, None)
        assert statistic is not None
        return genmode.Evidence(values.masked_fill(statistic.isnan(), torch.nan), draws)


def register_schemes(host: Registry) -> None:
    host.register(Parity)
    host.register(Reader)


def config(**more: Any) -> genmode.WatermarkingConfig:
    return genmode.WatermarkingConfig("parity", **{"key": 0, **more})


class Words:
    """A tokenizer of numbers."""

    def __init__(self, size: int = 100) -> None:
        self.size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(n): n for n in range(self.size)}

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int], **options: Any) -> str:
        return " ".join(map(str, ids))
