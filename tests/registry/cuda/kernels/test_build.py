"""Kernels that are loaded, given up, and built ahead; here without a device."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genmode.cuda.kernels import build as kernels
from genmode.cuda.replay import Replays


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has a Triton, and a device to build on."""
    cuda = SimpleNamespace(set_device=lambda device: None, stream=nullcontext)
    monkeypatch.setattr(kernels, "torch", SimpleNamespace(cuda=cuda, device=torch.device))
    monkeypatch.setattr(kernels, "stream", lambda purpose: None)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: True)
    for name, value in {"_failed": False, "_modules": {}, "_begun": set(), "_building": {}}.items():
        monkeypatch.setattr(kernels, name, value)


def begin(kind: str, key: Any, run: Any) -> None:
    kernels.build_ahead(kind, key, torch.device("cpu"), run)


def test_without_triton_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    assert kernels.load("row_reductions") is None
    begin("select", 1, lambda: pytest.fail("nothing can be built"))
    kernels.wait("select")


def test_a_triton_that_lacks_something_costs_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def imported(name: str) -> Any:
        if name.endswith("row_reductions"):
            raise kernels.KernelError("too old")
        return name

    monkeypatch.setattr(kernels.importlib, "import_module", imported)
    assert kernels.load("row_reductions") is None
    assert kernels.load("split_attention") == "genmode.cuda.kernels.split_attention"


def test_a_kernel_that_fails_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.importlib, "import_module", lambda name: name)
    assert kernels.load("row_reductions") is not None
    assert not kernels.give_up(ValueError("something else"))
    with pytest.warns(UserWarning, match="no compiler"):
        assert kernels.give_up(kernels.KernelError("no compiler"))
    assert kernels.load("row_reductions") is None


def test_nothing_is_recorded_until_selection_is_built() -> None:
    go, inside = threading.Event(), []

    def run() -> None:
        inside.append(kernels.pending("select"))  # the builder itself may select
        go.wait()

    begin("select", 1, run)
    replays = Replays()
    assert kernels.pending("select")
    assert not kernels.pending("attention")
    for _ in range(3):
        assert replays(torch.neg, torch.ones(1)).tolist() == [-1.0]
    assert not replays._kept
    go.set()
    kernels.wait("select")
    assert inside == [False]
    assert not kernels.pending("select")
    replays(torch.neg, torch.ones(1))
    assert len(replays._kept) == 1


def test_each_kind_and_key_is_built_once_and_a_failure_is_left_for_later() -> None:
    built = []

    def fails() -> None:
        built.append("fails")
        raise RuntimeError

    for key in (1, 1, 2):
        begin("select", key, lambda: built.append("select"))
        begin("softmax", key, fails)
    kernels.wait("select")
    kernels.wait("softmax")
    assert sorted(built) == ["fails", "fails", "select", "select"]
