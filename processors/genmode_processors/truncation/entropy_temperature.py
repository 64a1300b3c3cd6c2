"""Temperatures that follow the entropy H of the row, in nats.

    dynamic_temperature:  T = low + (high - low) * (H / log n)^e,   n = number of unmasked tokens
    edt:                  T = T0 * b^(theta / H)

Sources: kalomaze, "Dynamic temperature", github.com/oobabooga/textgen/pull/5174 and
github.com/ggml-org/llama.cpp/ pull/4972; Zhang, Bao and Huang, "EDT: improving large language models'
generation by entropy-based dynamic temperature sampling", 2024, arXiv:2403.14541 (b = 0.8 there). The first
is hot where the model is undecided; so is the second, with T0 as its limit. Order and ties are kept, masked
tokens stay masked, and a row of entropy 0, which has one token or none, is left as it is. EDT's temperature
goes no lower than 0.0001.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

import genmode

from .base import entropy_of

_COLDEST = 1e-4


def _divided(scores: Tensor, temperature: Tensor, entropy: Tensor) -> Tensor:
    return scores / temperature.clamp(min=_COLDEST).masked_fill(~(entropy > 0), 1)


class DynamicTemperature(genmode.LogitsProcessor):
    """Maps the share of the greatest possible entropy to a temperature between two bounds."""

    contract_version = 1
    name = "dynamic_temperature"
    paper = "kalomaze, Dynamic temperature, github.com/ggml-org/llama.cpp/pull/4972"
    stage = genmode.Stage.TEMPERATURE
    traits = frozenset({genmode.Trait.PURE})
    after = ("temperature",)

    class Params(genmode.Params):
        dynatemp_low: float = Field(1.0, gt=0, description="temperature of a row that is certain")
        dynatemp_high: float = Field(1.0, gt=0, description="temperature of a row in which all tokens are equal")
        dynatemp_exponent: float = Field(1.0, gt=0, description="above 1 keeps most rows near the low bound")

        @model_validator(mode="after")
        def _ordered(self) -> DynamicTemperature.Params:
            if self.dynatemp_low > self.dynatemp_high:
                raise ValueError(
                    f"dynatemp_low is {self.dynatemp_low} and dynatemp_high is {self.dynatemp_high}; "
                    "the low bound must not be above the high one"
                )
            return self

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        low, high = self.params.dynatemp_low, self.params.dynatemp_high
        entropy = entropy_of(scores.softmax(-1))
        most = (scores > -torch.inf).sum(-1, keepdim=True).clamp_(min=2).to(entropy.dtype).log_()
        share = (entropy / most).clamp_(0, 1)
        return _divided(scores, low + (high - low) * share**self.params.dynatemp_exponent, entropy)


class Edt(genmode.LogitsProcessor):
    """Entropy-based dynamic temperature."""

    contract_version = 1
    name = "edt"
    paper = "Zhang, Bao and Huang, EDT: entropy-based dynamic temperature sampling, 2024, arXiv:2403.14541"
    stage = genmode.Stage.TEMPERATURE
    traits = frozenset({genmode.Trait.PURE})
    after = ("temperature",)

    class Params(genmode.Params):
        edt_temperature: float = Field(1.0, gt=0, description="temperature T0 of a row of great entropy")
        edt_theta: float = Field(0.1, ge=0, description="how far the temperature falls with the entropy")
        edt_base: float = Field(0.8, gt=0, lt=1, description="base of the exponential")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """`[rows, vocab]`, a new tensor."""
        entropy = entropy_of(scores.softmax(-1))
        temperature = self.params.edt_temperature * self.params.edt_base ** (self.params.edt_theta / entropy)
        return _divided(scores, temperature, entropy)
