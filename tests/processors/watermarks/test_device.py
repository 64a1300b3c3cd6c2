"""Watermarks in whole calls on a device: the CPU's tokens, found by the CPU's detector, and no wait in the loop.

On the CPU the same tests try that the ways of devices, which draw or add up over the whole vocabulary, give the same.
"""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing import check_component
from genmode.testing.harness.models import prompt, tiny
from genmode.watermark import judge

from ...waits import no_waits
from .marks_support import KEY, SCHEMES, make

NAMES = [name for name in SCHEMES if "kgw" not in name]
"""KGW's order of the vocabulary is that of the device's own generator."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WAYS: dict[str, dict[str, Any]] = {
    "sampling": {"do_sample": True, "seed": [5, 6, 7]},
    "greedy": {},
    "beams": {"num_beams": 4},
    "prompt lookup": {"prompt_lookup_num_tokens": 3, "do_sample": True, "seed": [5, 6, 7]},
}


@functools.cache
def on(device: str) -> Any:
    return copy.deepcopy(tiny("llama")).to(device)


def decoded(name: str, device: str, **flags: Any) -> Tensor:
    """What was decoded, on the CPU: `[rows, tokens]`."""
    inputs = {key: value.to(device) for key, value in prompt("llama", 3).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what a watermark loses in greedy search and beams
        ids = genmode.generate(on(device), **inputs, watermark=make(name), **{"max_new_tokens": 40, **flags})
    return ids[:, inputs["input_ids"].shape[1] :].cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_are_those_of_the_cpu(name: str, way: str, device: str) -> None:
    if name in ("gumbel", "permute_and_flip") and way == "beams":
        return  # refused, on any device
    expected = decoded(name, "cpu", **WAYS[way])
    with host_sync.late_host():
        assert torch.equal(decoded(name, device, **WAYS[way]), expected)


@pytest.mark.parametrize("name", ["gumbel", "permute_and_flip", "unbiased", "dip"])
def test_the_ways_of_devices_read_nothing_on_the_host(name: str) -> None:
    with host_sync.late_host():
        assert check_component(type(make(name)), {"key": KEY}, only=["no_synchronisation"]).ok


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["kgw", "kgw selfhash", *NAMES])
def test_the_mark_is_found(name: str, device: str) -> None:
    """Of three rows of 150 tokens at least one; text that was marked on a device is read on the CPU, but for KGW."""
    text = decoded(name, device, do_sample=True, seed=[5, 6, 7], max_new_tokens=150, eos_token_id=None)
    mark = make(name)
    if "kgw" in name:
        text = text.to(device)
    statistic = torch.full(text.shape, 3.0) if genmode.Trait.READS_MODEL in mark.traits else None
    assert any(one.marked for one in judge(mark, text, statistic))
    assert not all(one.marked for one in judge(make(name, key=KEY + 1), text, statistic))


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["sampling", "prompt lookup"])
@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_the_device(name: str, way: str) -> None:
    with no_waits():
        assert decoded(name, "cuda", **WAYS[way], eos_token_id=None).shape == (3, 40)
