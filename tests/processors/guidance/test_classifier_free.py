"""Classifier-free guidance on models that keep their state elsewhere than in a cache, and masks of negative prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import prompt, tiny

NEGATIVE = torch.tensor([[5, 9, 7]])
GUIDED: dict[str, Any] = {"guidance_scale": 1.5, "max_new_tokens": 6, "do_sample": False}


@pytest.mark.parametrize("mask", [1, 0.5, True, "1", [1, 1, 1], [], {}, torch.ones(3), torch.ones(1, 2), object()])
@pytest.mark.parametrize("negative", [NEGATIVE, None], ids=["given", "left out"])
@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_mask_that_does_not_fit_its_prompt_is_refused(name: str, negative: Any, mask: Any) -> None:
    call = {"negative_prompt_ids": negative, "negative_prompt_attention_mask": mask}
    with pytest.raises(genmode.ParameterError, match="the attention mask of a second context"):
        genmode.generate(tiny(name), **prompt(name, 1), **GUIDED, **call)


@pytest.mark.parametrize(
    "negative", [1, [5, 9], "no", torch.tensor(5), torch.tensor([5, 9]), torch.ones(1, 2), NEGATIVE + 95]
)
@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_negative_prompt_is_a_tensor_of_rows(name: str, negative: Any) -> None:
    with pytest.raises(genmode.ParameterError, match="a second context"):
        genmode.generate(tiny(name), **prompt(name, 1), **GUIDED, negative_prompt_ids=negative)


@pytest.mark.parametrize("mask", [torch.ones(1, 3), torch.tensor([[0, 1, 1]])])
@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_mask_that_fits_is_as_in_transformers(name: str, mask: torch.Tensor) -> None:
    mask = mask.long()
    call = {**prompt(name, 1), **GUIDED, "negative_prompt_ids": NEGATIVE, "negative_prompt_attention_mask": mask}
    assert torch.equal(genmode.generate(tiny(name), **call), tiny(name).generate(**call))


@pytest.mark.parametrize("more", [{}, {"prompt_lookup_num_tokens": 3}], ids=["plain", "drafts"])
@pytest.mark.parametrize("negative", [NEGATIVE, None], ids=["given", "left out"])
def test_without_a_cache_drafts_and_batches_change_nothing(negative: Any, more: dict[str, Any]) -> None:
    model, inputs = tiny("mamba"), prompt("mamba", 3)
    inputs["input_ids"][0, :-1] = inputs["input_ids"][0, -1]  # repeats itself, so that drafts are accepted
    call = {**GUIDED, "use_cache": False, "max_new_tokens": 12}
    for row in range(3):
        kept = inputs["attention_mask"][row].bool()
        alone = inputs["input_ids"][row : row + 1, kept]
        expected = model.generate(alone, negative_prompt_ids=negative, **call)[0, alone.shape[1] :]
        rows = None if negative is None else negative.repeat(3, 1)
        found = genmode.generate(model, **inputs, negative_prompt_ids=rows, **call, **more)
        assert torch.equal(found[row, -12:], expected)
