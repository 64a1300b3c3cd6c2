"""A real model: SmolLM2-135M-Instruct, from the cache or the package index, decodes as under transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode

pytestmark = [
    pytest.mark.demo,
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning"),
    pytest.mark.xdist_group("demo"),
]

PROMPTS = (
    "Write one sentence about rivers.",
    "Which fruits are there besides apples and pears?",
)


def chat(tokenizer: Any, *prompts: str) -> dict[str, Tensor]:
    """Both prompts as a left-padded batch, or one of them."""
    tokenizer.padding_side = "left"
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in prompts
    ]
    return dict(tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False))


@pytest.mark.parametrize(
    "flags",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1},
        {"num_beams": 3, "length_penalty": 0.8, "early_stopping": True},
    ],
    ids=["greedy", "sample", "beams"],
)
def test_what_transformers_decodes(loaded: tuple[Any, Any], flags: dict[str, Any]) -> None:
    model, tokenizer = loaded
    for prompts in (PROMPTS[:1], PROMPTS) if flags == {"do_sample": False} else (PROMPTS,):
        inputs = chat(tokenizer, *prompts)
        results = []
        for generate in (type(model).generate, genmode.generate):
            torch.manual_seed(0)
            results.append(generate(model, **inputs, max_new_tokens=16, **flags))
        assert torch.equal(*results)


def test_prompt_lookup_gives_greedy_searchs_tokens_in_fewer_forwards(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    inputs = tokenizer(3 * "apples, pears, plums, quinces, ", return_tensors="pt")
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        stock = model.generate(**inputs, do_sample=False, max_new_tokens=30)
        plain = len(seen)
        ours = genmode.generate(model, **inputs, do_sample=False, max_new_tokens=30, prompt_lookup_num_tokens=6)
    finally:
        hook.remove()
    assert torch.equal(ours, stock)
    assert len(seen) - plain < plain
    both = chat(tokenizer, *PROMPTS)
    flags = {"do_sample": False, "max_new_tokens": 16}
    stock = model.generate(**both, **flags)
    assert torch.equal(genmode.generate(model, **both, **flags, prompt_lookup_num_tokens=6), stock)


def test_what_it_says(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    inputs = chat(tokenizer, "What is the capital of France?")
    text = "".join(genmode.stream(model, **inputs, tokenizer=tokenizer, do_sample=False, max_new_tokens=12))
    assert "Paris" in text
