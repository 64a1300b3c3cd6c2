"""What the tests of bad input share: a call, and what has to be as before behind every test."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

import genmode
from genmode.testing.harness.models import prompt, tiny

ONE = prompt("llama", 1)
FLAGS: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8}


def all_is_as_before() -> Iterator[None]:
    """The shared model, its configs and torch's switches are what they were, and decode what they did."""
    model = tiny("llama")
    kept = copy.deepcopy((vars(model.generation_config), model.config.to_dict()))
    torch.manual_seed(5)
    yield
    assert (vars(model.generation_config), model.config.to_dict()) == kept
    assert torch.is_grad_enabled()
    assert "generate" not in vars(model)
    torch.manual_seed(6)
    ours = genmode.generate(model, **ONE, do_sample=True, max_new_tokens=4)
    torch.manual_seed(6)
    assert torch.equal(ours, model.generate(**ONE, do_sample=True, max_new_tokens=4))
