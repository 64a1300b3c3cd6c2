"""The portable engine: drafts where a forward of several tokens is one of each in turn, and a refusal where it is not."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.engines.outputs import alike
from genmode.testing.harness.models import fresh, ids, near, prompt, tiny

SIZES: dict[str, Any] = {
    "vocab_size": 160, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
SMALL: dict[str, Any] = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 512}


def built(name: str, config: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, name)(config).eval()


@pytest.mark.parametrize(("apart", "same"), [(1e-4, True), (0.3, False)])
def test_rounding_is_told_from_other_predictions(apart: float, same: bool) -> None:
    logits = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[1, 2, 7] += apart  # one number of one row
    assert alike(logits, other) == same


def test_a_model_that_is_not_causal_drafts_nothing() -> None:
    config = transformers.RobertaConfig(**SMALL, is_decoder=True)
    model, tokens = built("RobertaForCausalLM", config), ids(2, 9)
    model.config.is_decoder = False  # it sees what follows, as most of these checkpoints do
    flags: dict[str, Any] = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 12, "do_sample": False}
    stock = model.generate(tokens, **flags)
    assert torch.equal(genmode.generate(model, tokens, **flags), stock)
    with pytest.raises(genmode.UnsupportedError, match="RobertaForCausalLM cannot verify drafts"):
        genmode.generate(model, tokens, **flags, prompt_lookup_num_tokens=4, max_matching_ngram_size=1)


def test_a_model_that_fails_at_several_tokens_is_refused() -> None:
    model = fresh("llama")
    plain = model.forward

    def one_by_one(*, past_key_values: Any = None, input_ids: Tensor | None = None, **more: Any) -> Any:
        if past_key_values.get_seq_length() and input_ids is not None and input_ids.shape[1] > 1:
            raise IndexError("too many")
        return plain(input_ids=input_ids, past_key_values=past_key_values, **more)

    model.forward = one_by_one
    with pytest.raises(
        genmode.UnsupportedError, match=re.escape("several tokens in a forward fail (IndexError: too many)")
    ):
        genmode.generate(
            model, **prompt("llama", 2), max_new_tokens=12, prompt_lookup_num_tokens=4, max_matching_ngram_size=1,
            prefill_chunk_size=64,
        )  # fmt: skip


def test_a_window_that_only_the_cache_knows_is_no_cache_to_go_back_in() -> None:
    config = transformers.MoshiConfig(**SMALL, sliding_window=8, num_key_value_heads=4, ffn_dim=128)
    with pytest.raises(genmode.UnsupportedError, match="MoshiForCausalLM cannot go back"):
        genmode.generate(built("MoshiForCausalLM", config), ids(1, 9), max_new_tokens=8, strategy="prompt_lookup")


def test_beams_of_a_state_that_cannot_be_reordered_are_refused() -> None:
    config = transformers.RwkvConfig(**{k: v for k, v in SIZES.items() if k != "num_attention_heads"})
    model, tokens = built("RwkvForCausalLM", config), ids(1, 6)
    assert genmode.generate(model, tokens, max_new_tokens=4).shape[1] <= 10
    with pytest.raises(genmode.UnsupportedError, match=r"the state of RwkvForCausalLM .* cannot be reordered"):
        genmode.generate(model, tokens, max_new_tokens=4, num_beams=2, do_sample=False)


def test_beams_of_a_model_that_views_what_its_cache_returns() -> None:
    model = built("GPTNeoXJapaneseForCausalLM", transformers.GPTNeoXJapaneseConfig(**SIZES))
    tokens = ids(3, 9)
    flags: dict[str, Any] = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 8, "num_beams": 3}
    assert torch.equal(genmode.generate(model, tokens, **flags), model.generate(tokens, **flags, do_sample=False))


@pytest.mark.parametrize("family", ["t5", "window"])
def test_a_model_beside_the_first_may_be_ahead_of_the_longest_row(family: str) -> None:
    """Rows of their own lengths, near the greatest one, with a second model that has read all drafts."""
    if family == "t5":
        model, call = tiny("t5"), {"amateur_model": near("t5"), "strategy": "suffix_lookup", "max_new_tokens": 20}
        inputs = {"input_ids": ids(5, 3, seed=9)}
    else:
        model = built(
            "MistralForCausalLM", transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8)
        )
        call = {"context_free_ids": torch.tensor([[31, 64]] * 4), "prompt_lookup_num_tokens": 4, "max_new_tokens": 10}
        inputs = {"input_ids": ids(4, 17)}
    drafted = genmode.generate(model, **inputs, **call, do_sample=True, seed=11)
    for key in ("strategy", "prompt_lookup_num_tokens"):
        call.pop(key, None)
    assert torch.equal(drafted, genmode.generate(model, **inputs, **call, do_sample=True, seed=11))


SELECTS: dict[str, Any] = {
    **SMALL, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "head_dim": 8, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "index_n_heads": 4, "index_head_dim": 16,
}  # fmt: skip


def test_a_model_that_selects_what_it_attends_to_drafts_up_to_as_many_tokens() -> None:
    """Rows go on alone after uneven drafts, each with its part of the indexer's keys."""
    tokens = ids(3, 24)
    mask = torch.ones_like(tokens)
    tokens[1, :5] = mask[1, :5] = 0
    flags: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 16}
    drafts: dict[str, Any] = {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1}
    model = built("GlmMoeDsaForCausalLM", transformers.GlmMoeDsaConfig(**SELECTS, index_topk=40))
    stock = model.generate(tokens, **flags, do_sample=False)
    assert torch.equal(genmode.generate(model, tokens, **flags, **drafts), stock)
    few = built("GlmMoeDsaForCausalLM", transformers.GlmMoeDsaConfig(**SELECTS, index_topk=39))
    with pytest.raises(
        genmode.UnsupportedError, match=r"results of 40 tokens: beyond 39 .* Give max_length=39 or less"
    ):
        genmode.generate(few, tokens, **flags, **drafts)


@pytest.mark.filterwarnings("ignore:There is no sequence length limit")
def test_beams_reorder_a_cache_that_comes_back_under_another_name() -> None:
    config = transformers.XLNetConfig(
        vocab_size=160, d_model=64, n_layer=2, n_head=4, d_inner=64, d_head=16, initializer_range=0.2, pad_token_id=0
    )
    model, tokens = built("XLNetLMHeadModel", config), ids(3, 9)
    flags: dict[str, Any] = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 12, "num_beams": 3}
    stock = model.generate(tokens, **flags, do_sample=False)
    assert torch.equal(genmode.generate(model, tokens, **flags, do_sample=False), stock)


@pytest.mark.skipif(not hasattr(transformers.cache_utils, "DummyLayer"), reason="older caches have no empty layers")
def test_layers_that_read_the_keys_of_others_draft() -> None:
    """A window shorter than the result, rows that go on alone, and two layers of the cache that hold nothing."""
    sizes: dict[str, Any] = {
        **SMALL,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 8,
    }
    config = transformers.Gemma3nTextConfig(
        **sizes, num_kv_shared_layers=2, vocab_size_per_layer_input=160, hidden_size_per_layer_input=8, laurel_rank=8,
        layer_types=["sliding_attention", "full_attention"] * 2, activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip
    model, tokens = built("Gemma3nForCausalLM", config), ids(3, 20)
    flags: dict[str, Any] = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 16}
    drafts: dict[str, Any] = {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1}
    stock = model.generate(tokens, **flags, do_sample=False)
    with genmode.trace() as traced:
        assert torch.equal(genmode.generate(model, tokens, **flags, **drafts), stock)
    assert traced.calls[0].steps < 16  # some were right


def test_candidates_of_a_model_without_a_cache() -> None:
    """A forward returns the states of the whole text then, of which a candidate's is the last."""
    flags: dict[str, Any] = {**prompt("llama", 2), "max_new_tokens": 6, "penalty_alpha": 0.6, "top_k": 4}
    cached = genmode.generate(fresh("llama"), **flags)
    assert torch.equal(genmode.generate(fresh("llama"), **flags, use_cache=False), cached)


def test_a_prompt_of_one_token_is_read_again() -> None:
    """Rows that begin again behind it leave nothing in the cache; positions are made anew."""

    class Again(genmode.Strategy):
        contract_version = 1
        name = "again"
        needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.POPULATION, genmode.Need.ROLLBACK})

        def decode(self, session: genmode.Session, params: genmode.Params) -> None:
            for _ in range(2):
                for step in session.steps():
                    step.commit(step.best())
                session.restart(torch.ones(session.rows, dtype=torch.long))
            for step in session.steps():
                step.commit(step.best())

    model = built(
        "MistralForCausalLM", transformers.MistralConfig(**{**SMALL, "num_key_value_heads": 2, "sliding_window": 6})
    )
    tokens, flags = torch.tensor([[7], [8]]), {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None}
    expected = model.generate(tokens, **flags)
    assert torch.equal(genmode.generate(model, tokens, strategy=Again, **flags), expected)
