"""Which engine runs a call, and that the engines agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import genmode
from genmode.testing.harness.models import ids, prompt, tiny


@pytest.mark.oldest
class TestEngines:
    def test_which_engine_and_why(self) -> None:
        window = {"max_new_tokens": 4}
        for name, flags, engine, why in (
            ("llama", {}, "static", "graphs are for CUDA"),
            ("gpt2", {}, "static", "graphs are for CUDA"),
            ("qwen2", {"num_beams": 3}, "static", "graphs are for CUDA"),
            ("llama", {"use_cache": False}, "portable", ""),
            ("llama", {"past_key_values": transformers.DynamicCache()}, "portable", "cache of its own"),
            ("llama", {"cache_implementation": "static"}, "portable", "cache of its own"),
            ("llama", {"prefill_chunk_size": 4}, "portable", "in chunks"),
            ("gemma3", window, "portable", "sliding window"),
            ("mamba", {}, "portable", "keeps no cache of keys"),
            ("t5", {}, "portable", "encoder-decoder"),
            ("llava", {}, "portable", ""),
        ):
            plan = genmode.explain(tiny(name), **prompt(name, 2), **{"max_new_tokens": 4, **flags})
            assert plan.engine == engine, name
            assert why in plan.engine_why, plan.engine_why
            assert plan.rows == 2 * flags.get("num_beams", 1)

    @pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
    def test_engines_agree(self, name: str) -> None:
        inputs = prompt(name, 3)
        for flags in ({"num_beams": 3}, {"do_sample": True, "top_p": 0.8}, {"prompt_lookup_num_tokens": 3}):
            results = []
            for portable in ({}, {"prefill_chunk_size": 64}):
                torch.manual_seed(5)
                results.append(genmode.generate(tiny(name), **inputs, max_new_tokens=12, seed=3, **flags, **portable))
            assert torch.equal(*results), flags

    def test_the_static_cache_grows_with_long_results(self) -> None:
        """Capacity begins at 256 tokens behind the prompt."""
        inputs = {"input_ids": ids(2, 3), "attention_mask": torch.ones(2, 3).long()}
        model, flags = tiny("qwen2"), {"max_new_tokens": 300, "do_sample": False}
        stock = model.generate(**inputs, **flags)
        assert torch.equal(genmode.generate(model, **inputs, **flags), stock)
        assert torch.equal(genmode.generate(model, **inputs, **flags, prompt_lookup_num_tokens=5), stock)


class OwnLoop(transformers.LlamaForCausalLM):
    """A model that decodes in a way of its own."""

    def generate(self, inputs: Any = None, **kwargs: Any) -> Any:
        return inputs


class OtherInputs(transformers.LlamaForCausalLM):
    """One whose generate gives the inputs by place, as SeamlessM4T's does."""

    def generate(self, input_ids: Any = None, **kwargs: Any) -> Any:
        return super().generate(input_ids, **kwargs)


@pytest.mark.parametrize(("cls", "why"), [(OwnLoop, "decodes by itself"), (OtherInputs, "multiple values")])
def test_an_assistant_with_a_generate_of_its_own_is_refused(cls: Any, why: str) -> None:
    model = tiny("llama")
    with pytest.raises(genmode.UnsupportedError, match=f"{cls.__name__} cannot be run beside the rows: .*{why}"):
        genmode.generate(model, **prompt("llama", 1), assistant_model=cls(model.config).eval(), max_new_tokens=4)
