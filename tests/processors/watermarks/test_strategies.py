"""Watermarks under the project's strategies: drafting, beams, padding, and what cannot be right."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import prompt, tiny

from .marks_support import KEY, SCHEMES

NAMES = sorted({cls.name for cls, _ in SCHEMES.values()})
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy_search": {},
    "sample": {},
    "beam_search": {"num_beams": 3},
    "beam_sample": {"num_beams": 3},
    "group_beam_search": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive_search": {"penalty_alpha": 0.5, "top_k": 4},
    "dola_generation": {"dola_layers": "low"},
    "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    "suffix_lookup": {},
}
CHOOSING = ("gumbel", "permute_and_flip")
SEVERAL = ("beam_search", "beam_sample", "group_beam_search", "contrastive_search")


def mark(name: str, **more: Any) -> genmode.WatermarkingConfig:
    return genmode.WatermarkingConfig(name, key=KEY, **more)


def decode(name: str | None, rows: int = 3, inputs: Any = None, **flags: Any) -> torch.Tensor:
    given = prompt("llama", rows) if inputs is None else inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        flags = {"max_new_tokens": 16, "seed": [5, 6, 7][:rows], **flags}
        result: torch.Tensor = genmode.generate(
            tiny("llama"), **given, watermark=None if name is None else mark(name), **flags
        )
    return result[:, given["input_ids"].shape[1] :]


@pytest.mark.parametrize("name", NAMES)
def test_drafts_change_nothing(name: str) -> None:
    plain = decode(name, do_sample=True)
    assert not torch.equal(plain, decode(None, do_sample=True))
    for flags in ({"prompt_lookup_num_tokens": 3}, {"strategy": "suffix_lookup"}):
        assert torch.equal(decode(name, do_sample=True, **flags), plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_padding(name: str) -> None:
    inputs = prompt("llama", 3)
    together = decode(name, do_sample=True)
    for row in range(3):
        shown = inputs["attention_mask"][row].bool()
        alone = {key: value[row : row + 1, shown] for key, value in inputs.items()}
        assert torch.equal(decode(name, 1, alone, do_sample=True, seed=[5 + row]), together[row : row + 1])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_marks_or_says_why_not(strategy: str) -> None:
    for name in NAMES:
        flags: dict[str, Any] = {"strategy": strategy, **STRATEGIES[strategy]}
        if name in CHOOSING and strategy in SEVERAL:
            with pytest.raises(genmode.ParameterError, match=f"'{name}' draws each token itself"):
                decode(name, **flags)
            continue
        marked = decode(name, **flags)
        assert marked.shape == (3, 16)


@pytest.mark.parametrize("strategy", ["greedy_search", "beam_search", "contrastive_search"])
@pytest.mark.parametrize("name", ["kgw", "ewd"])
def test_a_strong_bias_leaves_green_tokens_alone(strategy: str, name: str) -> None:
    strong = mark(name, bias=60.0, greenlist_ratio=0.5)
    inputs = prompt("llama", 3)
    length = inputs["input_ids"].shape[1]
    output = genmode.generate(
        tiny("llama"), **inputs, max_new_tokens=12, strategy=strategy, watermark=strong, **STRATEGIES[strategy]
    )
    more = {"vocab_size": 100} if name == "kgw" else {}
    built = mark(name, bias=60.0, greenlist_ratio=0.5, **more).build()
    said = built.evidence(output, None).values[:, length:]
    assert (said == 1).all()


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("gumbel", {"do_sample": False}, "gives a sampled text"),
        ("dip", {"do_sample": False}, "does not sample"),
        ("unbiased", {"num_beams": 2}, "does not sample"),
        ("ewd", {"forced_eos_token_id": 7}, "tokens that forced_eos forces carry no mark"),
        ("kgw", {"thinking_budget": 2, "think_start": [3], "think_end": [4]}, "that thinking_budget forces carry no"),
    ],
)
def test_what_a_combination_loses_is_said(name: str, flags: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {**prompt("llama", 2), "max_new_tokens": 4, "watermark": mark(name), **flags}
    plan = genmode.explain(tiny("llama"), **call)
    assert any(words in note for note in plan.notes)
    assert words in str(plan)
    with pytest.warns(UserWarning, match=words):
        genmode.generate(tiny("llama"), **call)


def test_two_watermarks_are_both_there_and_said() -> None:
    both = [mark("unigram"), mark("ewd")]
    plan = genmode.explain(tiny("llama"), **prompt("llama", 2), max_new_tokens=4, watermark=both, do_sample=True)
    assert [part.name for part in plan.processors if part.stage == "watermark"] == ["ewd", "unigram"]
    assert "one after the other" in plan.notes[0]


def test_a_sampled_call_has_nothing_to_say() -> None:
    for name in NAMES:
        plan = genmode.explain(
            tiny("llama"), **prompt("llama", 2), max_new_tokens=4, watermark=mark(name), do_sample=True
        )
        assert plan.notes == ()
        assert str(KEY) not in str(plan)
        assert str(KEY) not in repr(plan.to_dict())


def test_names_and_keys_that_fit_nothing() -> None:
    call: dict[str, Any] = {**prompt("llama", 1), "max_new_tokens": 2}
    with pytest.raises(genmode.UnknownComponentError, match=r"no watermarker is named 'gumbl'.*'gumbel'"):
        genmode.generate(tiny("llama"), **call, watermark="gumbl")
    with pytest.raises(genmode.ParameterError, match=r"greenlist_ratio is a parameter of watermarker .*'kgw'"):
        genmode.generate(tiny("llama"), **call, greenlist_ratio=0.5)
    with pytest.raises(genmode.ParameterError, match="key has to be given"):
        genmode.generate(tiny("llama"), **call, watermark="gumbel")


def test_parameters_may_come_with_the_call_or_a_configuration() -> None:
    inputs = prompt("llama", 2)
    flags: dict[str, Any] = {"do_sample": True, "max_new_tokens": 6, "seed": 1}
    expected = genmode.generate(tiny("llama"), **inputs, watermark=mark("unigram", bias=4.0), **flags)
    by_name = genmode.generate(tiny("llama"), **inputs, watermark="unigram", key=KEY, bias=4.0, **flags)
    plain = {"scheme": "unigram", "key": KEY, "bias": 4.0}
    config = genmode.GenerationConfig(watermarking_config=plain, do_sample=True, max_new_tokens=6)
    by_config = genmode.generate(tiny("llama"), **inputs, generation_config=config, seed=1)
    by_dict = genmode.generate(tiny("llama"), **inputs, watermarking_config=plain, **flags)
    assert torch.equal(by_name, expected)
    assert torch.equal(by_config, expected)
    assert torch.equal(by_dict, expected)
