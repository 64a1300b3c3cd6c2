"""What a call asks for before any input is prepared: prompts that are healed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import BOS, PAD, VOCAB, tiny, tokenizer

SPACE = 21
HEALED: dict[str, Any] = {"token_healing": True, "tokenizer": tokenizer(), "max_new_tokens": 3, "do_sample": False}


def test_a_healed_prompt_is_decoded_as_it_stands() -> None:
    model = tiny("llama")
    result = genmode.generate(model, torch.tensor([[99, 99]]), **HEALED)
    assert torch.equal(result, model.generate(torch.tensor([[99, 99]]), **HEALED))


@pytest.mark.parametrize(
    ("prompt", "row"),
    [
        ([[SPACE]], 0), ([[SPACE, SPACE]], 0), ([[PAD]], 0), ([[BOS]], 0), ([[SPACE, 5], [SPACE, SPACE]], 1),
        ([[PAD, SPACE], [5, 5]], 0),
    ],
    ids=str,
)  # fmt: skip
def test_a_prompt_of_which_healing_leaves_nothing_is_refused(prompt: list[list[int]], row: int) -> None:
    for ask in (genmode.generate, genmode.explain):
        with pytest.raises(genmode.ParameterError, match=f"token_healing=True leaves nothing of prompt {row}"):
            ask(tiny("llama"), torch.tensor(prompt), **HEALED)


@pytest.mark.parametrize("token", [-100, -1, VOCAB, 2**40])
def test_a_healed_prompt_is_of_the_vocabulary(token: int) -> None:
    with pytest.raises(genmode.ParameterError, match=f"token_healing.*token id {token}, and the vocabulary"):
        genmode.generate(tiny("llama"), torch.tensor([[5, token]]), **HEALED)


def test_a_watermark_of_no_numbers_is_refused() -> None:
    with pytest.raises(genmode.ParameterError, match="Tensor"):
        genmode.generate(tiny("llama"), torch.tensor([[5]]), watermarking_config=torch.zeros(0), max_new_tokens=2)
