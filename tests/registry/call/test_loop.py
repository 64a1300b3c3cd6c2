"""Models in wrappers whose `generate` calls that of the model inside, as adapters and learnt prompts do it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import fresh, ids


class Wrapper:
    """Puts a token of its own in front of every prompt, by a method that it sets on the model inside."""

    FRONT = 7

    def __init__(self, model: Any) -> None:
        self.inside, self.plain = model, model.prepare_inputs_for_generation

    def forward(self, *arguments: Any, **more: Any) -> Any:
        return self.inside(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **more: Any) -> Any:
        inputs = self.plain(input_ids, **more)
        if inputs["input_ids"].shape[1] > 1:  # the prompt
            inputs["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (1, 0), value=self.FRONT)
            for key in ("attention_mask", "position_ids"):
                inputs.pop(key, None)
        else:  # behind it, places follow from the cache
            inputs.pop("attention_mask", None)
            inputs["position_ids"] = inputs["position_ids"] + 1
        return inputs

    def generate(self, *arguments: Any, **more: Any) -> Any:
        self.inside.prepare_inputs_for_generation = self.prepare_inputs_for_generation
        try:
            return self.inside.generate(*arguments, **more)
        finally:
            del self.inside.prepare_inputs_for_generation


@pytest.fixture
def wrapped() -> Wrapper:
    return Wrapper(fresh("llama"))


FLAGS: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": None}


@pytest.mark.parametrize("flags", [{"strategy": "greedy_search"}, {"do_sample": True, "top_k": 1, "seed": 1}, {}])
def test_the_model_inside_decodes_as_its_wrapper_prepares_it(wrapped: Wrapper, flags: dict[str, Any]) -> None:
    tokens = ids(2, 5)
    front = torch.full((2, 1), Wrapper.FRONT)
    expected = wrapped.inside.generate(torch.cat([front, tokens], 1), do_sample=False, **FLAGS)[:, 1:]
    assert torch.equal(genmode.generate(wrapped, tokens, **FLAGS, **flags), expected)
    assert not torch.equal(genmode.generate(wrapped.inside, tokens, **FLAGS), expected)


def test_drafts_are_refused_there(wrapped: Wrapper) -> None:
    with pytest.raises(genmode.UnsupportedError, match="Wrapper prepares what LlamaForCausalLM reads"):
        genmode.generate(wrapped, ids(2, 5), **FLAGS, strategy="prompt_lookup")
