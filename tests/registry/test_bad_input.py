"""What a user can get wrong: a clear error or a documented result, and everything still works afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers

import genmode
from genmode.testing.harness.models import BOS, PAD, greedy, ids, prompt, tiny

from .bad_input_support import FLAGS, ONE

pytestmark = pytest.mark.usefixtures("_all_is_as_before")


class TestNames:
    @pytest.mark.parametrize(
        ("flags", "error", "message"),
        [
            ({"strategy": "gready_search"}, genmode.UnknownComponentError, "no strategy .* mean 'greedy_search'"),
            ({"processors": "top_kk"}, genmode.UnknownComponentError, "no processor .* mean 'top_k'"),
            ({"processors": ["nothing_like_it"]}, genmode.UnknownComponentError, "genmode list"),
            ({"criteria": "qqq"}, genmode.UnknownComponentError, "no criterion is named 'qqq'"),
            ({"temprature": 1.0}, genmode.ParameterError, "'temprature' .did you mean 'temperature'"),
            ({"promt_lookup_num_tokens": 2}, genmode.ParameterError, "mean 'prompt_lookup_num_tokens'"),
            ({"pixel_values": torch.ones(1)}, genmode.ParameterError, "unknown argument 'pixel_values'"),
            ({"strategy": 3}, genmode.ParameterError, "strategy=3: give a name"),
            ({"strategy": str}, genmode.ParameterError, "give a name, a Strategy class"),
            ({"processors": 3}, genmode.ParameterError, "3 is no processor"),
            ({"criteria": 3}, genmode.ParameterError, "3 is no criterion"),
            ({"strategy": "sample", "do_sample": False}, genmode.ParameterError, "'sample' needs do_sample=True"),
            ({"strategy": "prompt_lookup", "num_beams": 3}, genmode.ParameterError, "needs num_beams=1"),
        ],
        ids=str,
    )
    def test_unknown_or_contradicting(self, flags: dict[str, Any], error: type[Exception], message: str) -> None:
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(error, match=message):
                call(tiny("llama"), **ONE, max_new_tokens=3, **flags)

    def test_an_unknown_key_in_a_config(self) -> None:
        config = transformers.GenerationConfig(max_new_tokens=3)
        config.temprature = 2.0
        with pytest.raises(genmode.ParameterError, match="mean 'temperature'"):
            genmode.generate(tiny("llama"), **ONE, generation_config=config)

    def test_what_has_no_generate(self) -> None:
        with pytest.raises((genmode.GenmodeError, AttributeError), match="generat"):
            genmode.generate(torch.nn.Linear(2, 2), ONE["input_ids"])


class TestValues:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"num_beams": 0}, "num_beams=0"),
            ({"num_beams": "2"}, "num_beams='2' is no whole number"),
            ({"num_beams": 2.5}, "num_beams=2.5"),
            ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 is more than num_beams=2"),
            ({"num_beams": 2, "early_stopping": "sometimes"}, "early_stopping='sometimes'"),
            ({"num_beams": 2, "length_penalty": "x"}, "length_penalty='x'"),
            ({"num_return_sequences": 2}, "num_return_sequences"),
            ({"max_new_tokens": 0}, "max_new_tokens"),
            ({"max_new_tokens": -1}, "max_new_tokens"),
            ({"max_new_tokens": "3"}, "max_new_tokens='3'"),
            ({"max_new_tokens": 2.5}, "max_new_tokens=2.5"),
            ({"max_new_tokens": None, "max_length": 9}, "max_length.* is set to 9"),
            ({"do_sample": "yes"}, "do_sample='yes': give True or False"),
            ({"do_sample": True, "temperature": 0.0}, "temperature"),
            ({"do_sample": True, "temperature": "hot"}, "temperature"),
            ({"do_sample": True, "top_k": -1}, "top_k"),
            ({"do_sample": True, "min_p": 3.0}, "min_p"),
            ({"do_sample": True, "seed": "x"}, "seed='x'"),
            ({"repetition_penalty": -1.0}, "penalty"),
            ({"bad_words_ids": []}, "bad_words_ids"),
            ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens=0"),
            ({"prompt_lookup_num_tokens": "x"}, "prompt_lookup_num_tokens='x'"),
            ({"max_time": "soon"}, "max_time='soon'"),
            ({"cache_implementation": "nonsense"}, "cache_implementation"),
            ({"generation_config": {"max_new_tokens": 3}}, "generation_config is a dict"),
            ({"streamer": 3}, "streamer=3 has no method put"),
            ({"cancel": 3}, "cancel=3 has no method is_set"),
            ({"stop_strings": "a"}, "tokenizer="),
        ],
        ids=str,
    )
    def test_wrong_types_and_ranges(self, flags: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):  # ParameterError, or what transformers raises
            genmode.generate(tiny("llama"), **ONE, **{"max_new_tokens": 3, **flags})

    @pytest.mark.parametrize("seed", ["x", 1.5, [1, 2], [None]], ids=str)
    def test_explain_refuses_the_seeds_that_generate_refuses(self, seed: Any) -> None:
        messages = []
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(genmode.ParameterError, match="seed") as caught:
                call(tiny("llama"), **ONE, do_sample=True, max_new_tokens=3, seed=seed)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]

    @pytest.mark.parametrize(
        "flags",
        [
            {},
            {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.5, "min_p": 0.1},
            {"do_sample": True, "seed": 3, "typical_p": 0.9},
            {"num_beams": 2},
            {"num_beams": 2, "do_sample": True},
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
            {"penalty_alpha": 0.6, "top_k": 4},
            {"dola_layers": "low", "repetition_penalty": 1.2},
            {"prompt_lookup_num_tokens": 2},
            {"renormalize_logits": True, "repetition_penalty": 1.2},
            {"mirostat_tau": 3.0, "do_sample": True, "xtc_probability": 0.5, "dry_multiplier": 0.8},
        ],
        ids=str,
    )
    def test_a_row_whose_every_token_is_masked(self, flags: dict[str, Any]) -> None:
        with pytest.raises(genmode.DecodingError, match=r"no token left to choose.*'suppress_tokens'") as caught:
            genmode.generate(tiny("llama"), **ONE, max_new_tokens=3, suppress_tokens=list(range(100)), **flags)
        assert caught.value.row == 0
        assert "num_beams" in flags or caught.value.sequences.shape == (1, 9)

    def test_whole_numbers_of_other_libraries(self) -> None:
        numpy = pytest.importorskip("numpy")
        result = genmode.generate(tiny("llama"), **ONE, do_sample=False, max_new_tokens=numpy.int64(4))
        assert torch.equal(result[:, 9:], greedy("llama", 1, 4))


class TestPrompts:
    @pytest.mark.parametrize(
        ("prompt_given", "message"),
        [
            (torch.zeros(1, 0, dtype=torch.long), r"empty \(shape \[1, 0\]\)"),
            (torch.zeros(0, 4, dtype=torch.long), r"empty \(shape \[0, 4\]\)"),
            (torch.tensor([3, 4]), r"shape \[2\]; give \[batch, length\]"),
            (torch.full((1, 4), 0.5), "torch.float32; give token ids"),
            ([[3, 4]], "is a list; give token ids as a tensor"),
            ({"input_ids": torch.tensor([[3]])}, r"generate\(model, \*\*inputs\)"),
        ],
        ids=str,
    )
    def test_no_prompt_at_all(self, prompt_given: Any, message: str) -> None:
        for name in ("llama", "bart"):
            with pytest.raises(genmode.ParameterError, match=message):
                genmode.generate(tiny(name), prompt_given, max_new_tokens=3)
            with pytest.raises(genmode.ParameterError, match=message):
                genmode.generate(tiny(name), input_ids=prompt_given, max_new_tokens=3)

    def test_a_mask_of_another_shape(self) -> None:
        for mask in (torch.ones(1, 3).long(), torch.ones(2, 9).long()):
            with pytest.raises(genmode.ParameterError, match="one number for each token"):
                genmode.generate(tiny("llama"), ONE["input_ids"], attention_mask=mask, max_new_tokens=3)

    @pytest.mark.oldest
    @pytest.mark.parametrize("flags", [{}, {"num_beams": 3}, {"do_sample": True, "top_p": 0.9}], ids=str)
    @pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mamba", "bart"])
    def test_rows_of_padding_and_padding_on_the_wrong_side(self, name: str, flags: dict[str, Any]) -> None:
        """As transformers, which warns and decodes."""
        hidden, turned = prompt(name, 3), prompt(name, 3)
        hidden["input_ids"][1], hidden["attention_mask"][1] = PAD, 0
        turned = {key: value.flip(1) for key, value in turned.items()}
        for inputs in (hidden, turned):
            results = []
            for generate in (type(tiny(name)).generate, genmode.generate):
                torch.manual_seed(3)
                results.append(generate(tiny(name), **inputs, max_new_tokens=6, **flags))
            assert torch.equal(*results)

    def test_a_hole_in_the_mask(self) -> None:
        inputs = prompt("llama", 2)
        inputs["attention_mask"][0, 4:6] = 0
        stock = tiny("llama").generate(**inputs, **FLAGS)
        for flags in ({}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(genmode.generate(tiny("llama"), **inputs, **FLAGS, **flags), stock)

    def test_longer_than_the_models_positions(self) -> None:
        with pytest.raises(
            genmode.DecodingError, match="70 tokens long, and GPT2LMHeadModel has 64 positions"
        ) as caught:
            genmode.generate(tiny("gpt2"), ids(1, 70), max_new_tokens=3)
        assert torch.equal(caught.value.sequences, ids(1, 70))
        assert isinstance(caught.value.__cause__, IndexError)
        with pytest.raises(genmode.ParameterError, match="70 tokens long, and BartForConditionalGeneration has 64"):
            genmode.generate(tiny("bart"), ids(1, 70), max_new_tokens=3)

    def test_results_longer_than_the_models_positions(self) -> None:
        """What fits is kept."""
        with pytest.raises(
            genmode.DecodingError, match="65 tokens long, and GPT2LMHeadModel has 64 positions"
        ) as caught:
            genmode.generate(tiny("gpt2"), ids(1, 60), max_new_tokens=10, do_sample=False)
        assert torch.equal(caught.value.sequences, tiny("gpt2").generate(ids(1, 60), max_new_tokens=5, do_sample=False))

    def test_rotary_positions_have_no_end(self) -> None:
        result = genmode.generate(tiny("llama"), ids(1, 300), max_new_tokens=3, do_sample=False)
        assert torch.equal(result, tiny("llama").generate(ids(1, 300), max_new_tokens=3, do_sample=False))

    def test_ids_outside_the_vocabulary(self) -> None:
        for wrong in (400, -1):
            with pytest.raises(genmode.DecodingError, match=f"token id {wrong}, and the vocabulary .* 0 to 99"):
                genmode.generate(tiny("llama"), torch.tensor([[3, wrong]]), max_new_tokens=3)


class TestModelsThatCannot:
    @pytest.mark.parametrize("name", ["mamba", "lfm2"])
    def test_drafting_with_a_recurrent_state(self, name: str) -> None:
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(genmode.UnsupportedError, match=f"{type(tiny(name)).__name__} cannot go back"):
                call(tiny(name), **prompt(name, 1), prompt_lookup_num_tokens=3, max_new_tokens=3)

    def test_drafting_with_a_static_cache(self) -> None:
        flags = {"cache_implementation": "static", "prompt_lookup_num_tokens": 3}
        with pytest.raises(genmode.UnsupportedError, match="cannot go back"):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags)


def test_no_prompt_begins_a_text() -> None:
    result = genmode.generate(tiny("llama"), max_new_tokens=3, do_sample=False)
    assert result[0, 0] == BOS


def test_errors_derive_from_what_a_caller_would_catch() -> None:
    pairs: Mapping[type[Exception], type[Exception]] = {
        genmode.ParameterError: ValueError, genmode.UnknownComponentError: LookupError,
        genmode.UnsupportedError: NotImplementedError, genmode.DecodingError: RuntimeError,
        genmode.CancelledError: genmode.DecodingError, genmode.PluginLoadError: ImportError,
    }  # fmt: skip
    for ours, built_in in pairs.items():
        assert issubclass(ours, built_in)
        assert issubclass(ours, genmode.GenmodeError)
