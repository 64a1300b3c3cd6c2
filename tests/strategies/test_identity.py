"""Greedy search, sampling, beam search and beam sample give what transformers' own `generate` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.testing.harness.models import ENCODER_DECODER, FAMILIES, PAD, VOCAB, ids, prompt, tiny

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sample": {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9},
    "sample_typical": {"do_sample": True, "top_k": 0, "min_p": 0.02, "typical_p": 0.9},
    "beam_search": {"num_beams": 4},
    "beam_sample": {"num_beams": 3, "do_sample": True, "temperature": 1.3, "top_p": 0.9},
}
RECORDED = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
ALL_FLAGS = {**RECORDED, "output_attentions": True, "output_hidden_states": True}
LENGTH = 14


def same(ours: Any, stock: Any, where: str = "result") -> None:
    """Same structure, equal integers, floating-point numbers equal up to rounding."""
    if isinstance(stock, Tensor):
        assert ours.shape == stock.shape, f"{where}: {tuple(ours.shape)}, not {tuple(stock.shape)}"
        assert ours.dtype == stock.dtype, where
        if where.endswith("sequences"):  # where a criterion ends beams, transformers fills up with -1
            stock = stock.masked_fill(stock == -1, PAD)
        if stock.is_floating_point():
            torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4, msg=lambda text: f"{where}: {text}")
        else:
            assert torch.equal(ours, stock), f"{where}: {ours.tolist()}, not {stock.tolist()}"
    elif isinstance(stock, Mapping):
        assert type(ours) is type(stock), where
        assert list(ours) == list(stock), where
        for key in stock:
            same(ours[key], stock[key], f"{where}.{key}")
    elif isinstance(stock, (tuple, list)):
        assert len(ours) == len(stock), f"{where}: {len(ours)} entries, not {len(stock)}"
        for index, (one, other) in enumerate(zip(ours, stock, strict=True)):
            same(one, other, f"{where}[{index}]")
    elif isinstance(stock, transformers.EncoderDecoderCache):
        same(ours.self_attention_cache, stock.self_attention_cache, f"{where}.self")
        same(ours.cross_attention_cache, stock.cross_attention_cache, f"{where}.cross")
    elif isinstance(stock, transformers.Cache):
        for name in ("keys", "values", "conv_states", "recurrent_states"):
            states = [[getattr(layer, name, None) for layer in cache.layers] for cache in (ours, stock)]
            same(*states, f"{where}.{name}")
    else:
        assert type(ours) is type(stock), f"{where}: {ours!r}, not {stock!r}"


def both(model: Any, inputs: Mapping[str, Any] | Callable[[], Mapping[str, Any]], **flags: Any) -> tuple[Any, Any]:
    """Our result and transformers', after checking that they and torch's generator afterwards are the same.

    Args:
        inputs: what to pass besides the flags; a function where passing writes to it, as to a cache.
    """
    results: list[Any] = []
    states: list[Tensor] = []
    for generate in (genmode.generate, type(model).generate):
        torch.manual_seed(7)
        results.append(generate(model, **(inputs() if callable(inputs) else inputs), **flags))
        states.append(torch.get_rng_state())
    same(*results)
    assert torch.equal(*states), "torch's generator is left in another state"
    return results[0], results[1]


def ending(name: str, rows: int, **flags: Any) -> list[int]:
    """Ids of the end of sequence that make rows end early, and at different steps, under these flags."""
    torch.manual_seed(7)
    free = tiny(name).generate(**prompt(name, rows), max_new_tokens=LENGTH, **flags)[:, -LENGTH:]
    return sorted(
        {int(free[0, 4]), int(free[-1, 9]), *(free[:, 5:9].unique().tolist() if "num_beams" in flags else ())}
    )


def ended_early(sequences: Tensor, eos: list[int], prompt_length: int) -> bool:
    decoded = sequences[:, prompt_length:]
    return bool(torch.isin(decoded[:, :-1], torch.tensor(eos)).any()) or decoded.shape[1] < LENGTH


@pytest.mark.oldest
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, mode: str) -> None:
    model, flags = tiny(name), {**MODES[mode], **RECORDED, "max_new_tokens": LENGTH}
    both(model, prompt(name, 1), **flags)
    eos = ending(name, 3, **MODES[mode])
    ours, stock = both(model, prompt(name, 3), eos_token_id=eos, **flags)
    assert ended_early(stock.sequences, eos, 1 if name in ENCODER_DECODER else 9)
    same(*[model.compute_transition_scores(x.sequences, x.scores, x.get("beam_indices")) for x in (ours, stock)])


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam_search"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "lfm2", "t5", "bart", "llava"])
def test_all_output_flags(name: str, mode: str) -> None:
    ours, _ = both(tiny(name, "eager"), prompt(name, 3), **MODES[mode], **ALL_FLAGS, max_new_tokens=6)
    given = {key for key, value in ours.items() if value is not None}
    kinds = (
        "decoder_attentions",
        "encoder_attentions",
        "cross_attentions",
        "decoder_hidden_states",
        "encoder_hidden_states",
    )
    assert given >= {"scores", "logits", "past_key_values"}
    assert given >= set(kinds if name in ENCODER_DECODER else ("attentions", "hidden_states"))


@pytest.mark.parametrize("flag", ["output_scores", "output_logits", "output_attentions", "output_hidden_states"])
@pytest.mark.parametrize(("name", "mode"), [("llama", "greedy"), ("llama", "beam_sample"), ("bart", "beam_search")])
def test_one_output_flag(name: str, mode: str, flag: str) -> None:
    model, flags = tiny(name, "eager"), {**MODES[mode], "max_new_tokens": 5, flag: True}
    both(model, prompt(name, 3), **flags)  # without return_dict_in_generate a tensor
    both(model, prompt(name, 3), **flags, return_dict_in_generate=True)


def test_hidden_states_of_a_recurrent_model() -> None:
    flags = {**RECORDED, "output_hidden_states": True, "max_new_tokens": 6}
    both(tiny("mamba"), prompt("mamba", 3), **flags)


OPTIONS: dict[str, dict[str, Any]] = {
    "two samples of each": {"do_sample": True, "num_return_sequences": 2},
    "two beams of each": {"num_beams": 4, "num_return_sequences": 2},
    "all beams of each": {"num_beams": 3, "num_return_sequences": 3, "do_sample": True},
    "long": {"num_beams": 4, "length_penalty": 2.5},
    "short": {"num_beams": 4, "length_penalty": -1.5},
    "by the sum": {"num_beams": 4, "length_penalty": 0.0},
    "stop at once": {"num_beams": 4, "early_stopping": True, "num_return_sequences": 4},
    "heuristic": {"num_beams": 4, "early_stopping": False},
    "never": {"num_beams": 4, "early_stopping": "never"},
    "never, short": {"num_beams": 4, "early_stopping": "never", "length_penalty": -0.5},
    "temperature alone": {"do_sample": True, "temperature": 1.7, "top_k": 0},
    "cut-offs": {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02},
    "top-k above the vocabulary": {"do_sample": True, "top_k": 1000},
    "normalised": {"do_sample": True, "top_p": 0.5, "renormalize_logits": True},
    "penalties": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    "penalties with beams": {"num_beams": 3, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    "bans": {"bad_words_ids": [[7], [44, 44], [42, 11]], "suppress_tokens": [9, 10], "begin_suppress_tokens": [69]},
    "bias": {"sequence_bias": {(11,): -3.0, (49, 12): 4.0}, "do_sample": True},
    "forced": {"forced_eos_token_id": 5, "forced_bos_token_id": 6, "num_beams": 2},
    "least": {"min_new_tokens": 8},
    "least length": {"min_length": 15, "num_beams": 3},
    "ever likelier to end": {"exponential_decay_length_penalty": (4, 1.3), "do_sample": True},
    "guided": {"guidance_scale": 1.5, "do_sample": True},
    "invalid numbers removed": {"remove_invalid_values": True},
    "no cache": {"use_cache": False},
    "no cache, beams": {"use_cache": False, "num_beams": 3},
    "static cache": {"cache_implementation": "static"},
    "static cache, beams": {"cache_implementation": "static", "num_beams": 3, "do_sample": True},
    "prompt in chunks": {"prefill_chunk_size": 4},
}
EOS = list(range(5, 95, 9))


READS_TEXT = ("penalties", "penalties with beams", "bans", "bias")
"""Options of processors that take left padding for text in transformers."""


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (option, name)
        for i, option in enumerate(OPTIONS)
        for name in ("llama", ("gemma3", "t5", "mamba", "bart", "gpt2")[i % 5])
    ],
)
def test_options(option: str, name: str) -> None:
    if "cache" in option and name == "mamba":
        name = "qwen2"
    flags = {**OPTIONS[option], **RECORDED, "max_new_tokens": LENGTH}
    reads_text = option in READS_TEXT and name not in ENCODER_DECODER
    both(tiny(name), {"input_ids": ids(3, 9)} if reads_text else prompt(name, 3), **flags, eos_token_id=EOS)


class Sinking(transformers.LogitsProcessor):
    """A plain processor that lowers ids by how often they occur, and rows by their number."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        counts = torch.zeros_like(scores).scatter_add_(1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype))
        return scores - counts * torch.arange(1, len(scores) + 1)[:, None]


class Full(transformers.StoppingCriteria):
    """A plain criterion: a row is done when its last token is below a bound."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return input_ids[:, -1] < 15


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam_search", "beam_sample"])
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_plain_processors_and_criteria(name: str, mode: str) -> None:
    both(
        tiny(name), prompt(name, 3), **MODES[mode], **RECORDED, max_new_tokens=LENGTH,
        logits_processor=transformers.LogitsProcessorList([Sinking()]),
        stopping_criteria=transformers.StoppingCriteriaList([Full()]),
        prefix_allowed_tokens_fn=lambda row, tokens: list(range(row, VOCAB, 2)),
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["greedy", "beam_search"])
def test_a_criterion_sees_the_recorded_scores(mode: str) -> None:
    seen: list[int] = []

    class Counting(transformers.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            seen.append(len(scores))
            return torch.full((len(input_ids),), len(scores) >= 4)

    both(tiny("llama"), prompt("llama", 2), **MODES[mode], **RECORDED, max_new_tokens=9, stopping_criteria=[Counting()])
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]


@pytest.mark.oldest
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "qwen2_vl"])
def test_embeddings_instead_of_tokens(name: str, mode: str) -> None:
    model, inputs = tiny(name), prompt(name, 3)
    table = model.get_input_embeddings()
    embedded = {"inputs_embeds": table(inputs["input_ids"] % 90), "attention_mask": inputs["attention_mask"]}
    both(model, embedded, **MODES[mode], **RECORDED, max_new_tokens=8)


@pytest.mark.oldest
@pytest.mark.parametrize("mode", ["greedy", "sample", "beam_search"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_conversation_goes_on_with_its_cache(name: str, mode: str) -> None:
    model, inputs, more = tiny(name), prompt(name, 3), ids(3, 4, seed=5)
    copies = MODES[mode].get("num_beams", 1)

    def second_turn() -> dict[str, Any]:
        first = model.generate(**inputs, do_sample=False, max_new_tokens=6, return_dict_in_generate=True)
        spoken = torch.cat([first.sequences, more], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, 10, dtype=torch.long)], 1)
        cache = first.past_key_values
        if copies > 1:
            cache.batch_repeat_interleave(copies)
        return {"input_ids": spoken, "attention_mask": mask, "past_key_values": cache}

    both(model, second_turn, **MODES[mode], **RECORDED, max_new_tokens=8)


def test_our_own_cache_continues_a_conversation() -> None:
    model, inputs, more = tiny("llama"), prompt("llama", 3), ids(3, 4, seed=5)
    flags = {"do_sample": False, "max_new_tokens": 6, "return_dict_in_generate": True}
    results = []
    for first, second in ((genmode.generate, genmode.generate), (type(model).generate, type(model).generate)):
        turn = first(model, **inputs, **flags)
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, 10, dtype=torch.long)], 1)
        spoken = torch.cat([turn.sequences, more], 1)
        results.append(second(model, spoken, attention_mask=mask, past_key_values=turn.past_key_values, **flags))
    same(*results)


@pytest.mark.oldest
@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_a_passed_cache(cache: str) -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)

    def with_cache() -> dict[str, Any]:
        static = transformers.StaticCache(config=model.config, max_cache_len=40)
        return {**inputs, "past_key_values": static if cache == "static" else transformers.DynamicCache()}

    both(model, with_cache, **MODES["sample"], **RECORDED, max_new_tokens=8)
    caches = [with_cache()["past_key_values"] for _ in range(2)]
    for generate, passed in zip((genmode.generate, type(model).generate), caches, strict=True):
        generate(model, **inputs, max_new_tokens=8, past_key_values=passed)
    assert caches[0].get_seq_length() == 16
    same(*caches)


@pytest.mark.parametrize("mode", ["greedy", "sample", "beam_search"])
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_encoder_decoder_inputs(name: str, mode: str) -> None:
    model, inputs = tiny(name), prompt(name, 3)
    flags = {**MODES[mode], **RECORDED, "max_new_tokens": 8}
    both(model, {**inputs, "decoder_input_ids": ids(3, 4)}, **flags)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    both(model, {**inputs, "decoder_input_ids": ids(3, 3), "decoder_attention_mask": mask}, **flags)
    mask = inputs["attention_mask"]
    both(model, lambda: {"encoder_outputs": model.get_encoder()(**inputs), "attention_mask": mask}, **flags)
    embedded = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    both(model, {**embedded, "attention_mask": inputs["attention_mask"]}, **flags)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "mamba"])
def test_special_tokens_and_masks(name: str) -> None:
    model, inputs, eos = tiny(name), prompt(name, 3), ending(name, 3)
    unmasked = {"input_ids": inputs["input_ids"]}
    both(model, unmasked, max_new_tokens=8)
    both(model, inputs, max_new_tokens=LENGTH, eos_token_id=eos[0])
    both(model, inputs, max_new_tokens=LENGTH, eos_token_id=eos, pad_token_id=eos[0])
    both(model, inputs, max_new_tokens=LENGTH, eos_token_id=eos[-1], num_beams=3, pad_token_id=PAD)
    both(model, inputs, max_length=12 if name != "t5" else 6)
    both(model, inputs, max_new_tokens=1, num_beams=2)
    both(model, inputs, max_new_tokens=1, **RECORDED)


def test_positions_given_by_the_call() -> None:
    inputs = prompt("llama", 3)
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0) + 5
    both(tiny("llama"), {**inputs, "position_ids": positions}, **RECORDED, max_new_tokens=8)


def test_where_values_come_from() -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)
    config = transformers.GenerationConfig(num_beams=3, length_penalty=2.0, max_new_tokens=7, pad_token_id=PAD)
    both(model, inputs, generation_config=config, **RECORDED)
    both(model, inputs, generation_config=config, num_beams=1, do_sample=True, top_k=5)
    assert (config.num_beams, config.do_sample, config.top_k) == (3, None, None)
    both(model, {"inputs": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}, max_new_tokens=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    from genmode.testing.harness.models import fresh

    model = fresh("llama").to(dtype)
    for mode in ("greedy", "sample"):
        both(model, prompt("llama", 1), **MODES[mode], **RECORDED, max_new_tokens=LENGTH)


@pytest.mark.oldest
@pytest.mark.parametrize("name", ["llama", "t5"])
@pytest.mark.parametrize(
    "flags",
    [{}, {"num_beams": 4}, {"num_beams": 3, "num_return_sequences": 3}, {"num_beams": 3, "do_sample": True},
     {"do_sample": True, "top_k": 3}, {"num_beams": 4, "early_stopping": True, "length_penalty": 0.0}],
    ids=str,
)  # fmt: skip
def test_scores_that_are_equal(name: str, flags: dict[str, Any]) -> None:
    """As half precision gives them: of 100 tokens many have the highest score."""

    def coarse(input_ids: Tensor, scores: Tensor) -> Tensor:
        return (scores.clamp(max=-3) / 2).round()

    both(
        tiny(name), prompt(name, 3), **flags, **RECORDED, max_new_tokens=LENGTH, logits_processor=[coarse],
        eos_token_id=EOS,
    )  # fmt: skip


def test_a_prompt_of_one_token_and_of_none() -> None:
    both(tiny("llama"), {"input_ids": ids(2, 1)}, max_new_tokens=5)
    both(tiny("llama"), {}, max_new_tokens=5)  # begins with the model's first token
    both(tiny("bart"), {"input_ids": ids(2, 1)}, max_new_tokens=5, num_beams=2)


def test_an_id_twice_among_the_ends() -> None:
    """Beams look at as many candidates as there are entries."""
    both(tiny("llama"), prompt("llama", 2), num_beams=4, do_sample=True, eos_token_id=[64, 64, 71], max_new_tokens=8)
