"""The first layers of a model as its draft model."""

from __future__ import annotations

import pytest
import torch

import genmode
from genmode.testing.harness.models import VOCAB, fresh, ids, tiny
from genmode_strategies.drafters.first_layers import first_layers


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "llava"])
def test_first_layers_are_the_hidden_states_of_the_whole_model(name: str) -> None:
    model, tokens = tiny(name), ids(2, 7)
    before = dict(vars(model.config))
    short = first_layers(model, 1)
    with torch.no_grad():
        state = model(tokens, output_hidden_states=True).hidden_states[1]
        decoder = model.get_decoder()
        norm = decoder.ln_f if name == "gpt2" else decoder.norm
        torch.testing.assert_close(short(tokens).logits, model.get_output_embeddings()(norm(state)))
    assert vars(model.config) == before
    assert {id(p) for p in short.parameters()} < {id(p) for p in model.parameters()}
    assert first_layers(model, 1) is short


def test_first_layers_of_a_model_that_has_changed() -> None:
    model = fresh("llama")
    short = first_layers(model, 1)
    model.lm_head = torch.nn.Linear(32, VOCAB, bias=False)
    assert first_layers(model, 1) is not short
    genmode.attach(model)
    assert "generate" not in vars(first_layers(model, 1))


def test_a_config_that_tells_its_layers_by_a_property() -> None:
    model, tokens = tiny("mamba"), ids(2, 7)
    short = first_layers(model, 1)
    assert (len(short.backbone.layers), len(model.backbone.layers)) == (1, 2)
    drafted = genmode.generate(model, tokens, use_cache=False, max_new_tokens=6, assistant_early_exit=1)
    assert torch.equal(drafted, genmode.generate(model, tokens, use_cache=False, max_new_tokens=6))
    with pytest.raises(genmode.UnsupportedError, match="MambaForCausalLM cannot go back"):
        genmode.generate(model, tokens, max_new_tokens=6, assistant_early_exit=1)
