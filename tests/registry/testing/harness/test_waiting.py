"""Waits told by torch's sync debug mode: the wiring with a stand-in for CUDA, the real thing where there is a device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.session.token_buffer import TokenBuffer
from genmode.testing import Case, check_component
from genmode.testing.harness import waiting
from genmode.testing.harness.models import fresh, near

from ..row_components import KitTired, KitTwice, reads
from ..test_strategy_checks import KitGate, choosing, reads_items
from ..wrong import variant


class Device(SimpleNamespace):
    """Stands in for torch.cuda: a read fails while the mode is "error"."""

    def __init__(self, there: bool = True) -> None:
        self.mode, self.modes, self.there = "default", list[str](), there

    def is_available(self) -> bool:
        return self.there

    def get_device_name(self, device: Any) -> str:
        return "a stand-in"

    def set_sync_debug_mode(self, mode: str) -> None:
        self.mode = mode
        self.modes.append(mode)

    def read(self) -> None:
        if self.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(waiting, "cuda", made)
    monkeypatch.setattr(waiting, "moved", fresh)
    monkeypatch.setattr(waiting, "is_there", lambda model: True)
    return made


def only(component: type[Any], **options: Any) -> Any:
    (outcome,) = check_component(Case(component, **options), only=["no_synchronisation"], raises=False).outcomes
    return outcome


def test_from_the_third_step_on_the_mode_is_error(device: Device) -> None:
    outcome = only(KitGate, call={"max_new_tokens": 4, "eos_token_id": None})
    assert (outcome.status, outcome.message) == ("passed", "never waits for a stand-in")
    # 4 steps, each set and taken back but the last, whose loop does not come back; and once at the end
    assert device.modes == [
        "default",
        "default",
        "default",
        "default",
        "error",
        "default",
        "error",
        "default",
        "default",
    ]


@pytest.mark.parametrize("kind", ["strategy", "processor", "criterion"])
def test_a_read_is_laid_to_the_component(device: Device, kind: str) -> None:
    def choose(self: Any, session: genmode.Session, step: genmode.Step) -> Tensor:
        device.read()
        return step.scores.argmax(-1)

    def process(self: Any, scores: Tensor, history: genmode.History) -> Tensor:
        device.read()
        return scores

    def check(self: Any, history: genmode.History) -> Tensor:
        device.read()
        return history.lengths < 0

    wrong: dict[str, Any] = {
        "strategy": variant(KitGate, choose=choose), "processor": variant(KitTired, process=process),
        "criterion": variant(KitTwice, check=check),
    }  # fmt: skip
    outcome = only(wrong[kind])
    assert outcome.status == "failed"
    assert "waits for the device at test_" in outcome.message
    assert device.mode == "default"


def test_a_wait_of_the_hosts_is_no_fault_of_the_component(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    set_level = TokenBuffer.set_level

    def waits(self: TokenBuffer, length: int) -> None:
        device.read()
        set_level(self, length)

    monkeypatch.setattr(TokenBuffer, "set_level", waits)
    outcome = only(KitGate)
    assert "raised DecodingError" in outcome.message


def test_other_errors_pass(device: Device) -> None:
    def fails(session: genmode.Session, step: genmode.Step) -> Tensor:
        if device.mode == "error":
            raise ZeroDivisionError("on purpose")
        return step.scores.argmax(-1)

    assert "on purpose" in only(choosing(fails)).message


def test_without_a_device_or_with_models_elsewhere_the_cpu_is_watched(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.there = False
    assert waiting.model_there(Case(KitGate)) is None
    device.there = True
    monkeypatch.undo()
    monkeypatch.setattr(waiting, "cuda", device)
    assert waiting.model_there(Case(KitGate, model=fresh)) is None
    monkeypatch.setattr(waiting, "moved", fresh)
    assert waiting.model_there(Case(KitGate, call={"assistant_model": near("llama")})) is None
    assert only(choosing(reads_items), model=fresh).status == "failed"
    assert device.modes == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("right", [KitGate, KitTired, KitTwice])
def test_on_a_device(right: type[Any]) -> None:
    assert only(right).message.startswith("never waits for")
    wrong: dict[Any, type[Any]] = {
        KitGate: choosing(reads_items), KitTired: variant(KitTired, process=reads(KitTired.process)),
        KitTwice: variant(KitTwice, check=reads(KitTwice.check)),
    }  # fmt: skip
    assert "waits for the device at" in only(wrong[right]).message
