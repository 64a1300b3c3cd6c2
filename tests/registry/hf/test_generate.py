"""A model decodes as it is now: with its other inputs, compiled as asked, and in the middle of its training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CompileConfig

import genmode
from genmode.testing.harness.models import fresh, prompt, tiny


def trained(model: Any) -> Any:
    """The model in training mode, which saves activations."""
    model.train()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


def saves_activations(model: Any) -> bool:
    return any(getattr(one, "gradient_checkpointing", False) for one in model.modules())


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {}, "beams": {"num_beams": 3}, "sample": {"do_sample": True, "seed": 4},
    "lookup": {"prompt_lookup_num_tokens": 3}, "early exit": {"assistant_early_exit": 1},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
}  # fmt: skip


@pytest.mark.parametrize("drafts", [{"prompt_lookup_num_tokens": 4}, {"assistant_early_exit": 1}, {"assistant": True}])
def test_what_is_drafted_is_of_the_last_token_type(drafts: dict[str, Any]) -> None:
    model, inputs = tiny("gpt2"), prompt("gpt2", 3)
    types = torch.randint(2, 40, inputs["input_ids"].shape, generator=torch.Generator().manual_seed(0))
    flags: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "token_type_ids": types, **inputs}
    stock = model.generate(**flags)
    assert not torch.equal(stock, model.generate(**{**flags, "token_type_ids": types * 0}))  # types matter here
    drafts = {"assistant_model": fresh("gpt2")} if "assistant" in drafts else drafts
    assert torch.equal(genmode.generate(model, **flags, **drafts), stock)


@pytest.mark.parametrize("cache", ["static", None])
def test_compile_config_compiles_where_transformers_does(cache: str | None) -> None:
    compiled: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(1)
        return graph.forward

    config = CompileConfig(backend=backend, mode=None)
    config._compile_all_devices = True
    inputs = prompt("llama", 1)
    flags: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "compile_config": config}
    got = genmode.generate(fresh("llama"), **inputs, **flags, cache_implementation=cache)
    assert bool(compiled) == (cache == "static")
    assert torch.equal(got, genmode.generate(tiny("llama"), **inputs, max_new_tokens=5, do_sample=False))


@pytest.mark.parametrize("way", WAYS)
def test_a_model_in_training_with_checkpointing_decodes_as_else(way: str) -> None:
    model, inputs = fresh("llama"), prompt("llama", 2)  # without dropout
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, **WAYS[way]}
    expected = genmode.generate(model, **inputs, **flags)
    trained(model)
    assert torch.equal(genmode.generate(model, **inputs, **flags), expected)
    assert model.training
    assert saves_activations(model)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(one.grad is None or bool(one.grad.isfinite().all()) for one in model.parameters())


def test_checkpointing_is_on_again_behind_an_error() -> None:
    def fails(ids: Any, scores: Any) -> Any:
        raise KeyError("wrong")

    model = trained(fresh("llama"))
    with pytest.raises(genmode.DecodingError, match="wrong"):
        genmode.generate(model, **prompt("llama", 1), max_new_tokens=3, processors=[fails])
    assert saves_activations(model)
