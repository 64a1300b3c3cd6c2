"""Interrupts leave nothing behind, and threads disturb nobody."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import fresh, ids, prompt, tiny

LENGTH = 8


class Boom(KeyboardInterrupt):
    """An interrupt that the test can tell from one of the keyboard."""


class Interrupts:
    """Raises at the third time it is asked."""

    def __init__(self) -> None:
        self.left = 3

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Boom


class Stops(genmode.LogitsProcessor):
    contract_version = 1
    places: Any = None
    at = "process"

    def begin(self, context: Any) -> None:
        self.began = True

    def process(self, scores: Tensor, history: Any) -> Tensor:
        if self.at == "process":
            self.places()
        return scores

    def accept(self, tokens: Tensor) -> None:
        if self.at == "accept":
            self.places()

    def reset(self) -> None:
        self.began = False


class Asks(genmode.StoppingCriterion):
    contract_version = 1
    places: Any = None

    def check(self, history: Any) -> Tensor:
        self.places()
        return torch.zeros(history.rows, dtype=torch.bool)


class Sink:
    def __init__(self, interrupts: Callable[[], None]) -> None:
        self.interrupts = interrupts

    def put(self, value: Any) -> None:
        self.interrupts()

    def end(self) -> None: ...


class Loops(genmode.Strategy):
    contract_version = 1
    places: Any = None

    def decode(self, session: Any, params: Any) -> None:
        for step in session.steps():
            self.places()
            step.commit(step.scores.argmax(-1))


def state(model: Any) -> dict[str, Any]:
    """What a call might leave behind on a model."""
    own = {key: value for key, value in vars(model).items() if not key.startswith("_") and key != "generate"}
    return {
        "config": model.config.to_dict(), "generation": copy.deepcopy(model.generation_config.to_dict()),
        "training": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attributes": sorted(own), "grad": [p.requires_grad for p in model.parameters()],
        "weights": [p.sum().item() for p in model.parameters()], "attention": model.config._attn_implementation,
    }  # fmt: skip


PLACES = ("forward", "process", "accept", "check", "put", "strategy", "hook")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=["greedy", "beams", "drafts"]
)
def test_an_interrupt_leaves_model_attachment_and_next_call_as_they_were(place: str, flags: dict[str, Any]) -> None:
    if place == "strategy" and flags:
        flags = {"seed": 3}
    model = genmode.attach(fresh("llama").train())  # in training mode, which has to stay
    inputs, call = prompt("llama", 2), {"max_new_tokens": LENGTH, **flags}
    interrupts = Interrupts()
    before, wanted = state(model), model.generate(**inputs, **call)
    extra: dict[str, Any] = {}
    processor = Stops()
    processor.places, processor.at = interrupts, place
    handle = None
    with use(Registry()) as host:
        if place in ("process", "accept"):
            extra["processors"] = [processor]
        elif place == "check":
            Asks.places = staticmethod(interrupts)
            extra["criteria"] = [Asks]
        elif place == "put":
            extra["streamer"] = Sink(interrupts)
        elif place == "strategy":
            Loops.places = staticmethod(interrupts)
            extra["strategy"] = Loops
        elif place == "hook":

            class Watches:
                @genmode.hookimpl
                def genmode_session_step(self, session: Any) -> None:
                    interrupts()

            host.register(Watches(), kind="hooks", name="watches")
        else:
            handle = model.model.layers[0].register_forward_pre_hook(lambda *_: interrupts())
        with pytest.raises(Boom) as caught:
            model.generate(**inputs, **call, **extra)
    if handle is not None:
        handle.remove()
    assert caught.value.sequences.shape[0] >= 2  # what had been decoded
    assert not getattr(processor, "began", False)  # it was reset
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert model.generate.func.__module__ == "genmode.api"  # still attached
    assert state(model) == before
    assert torch.equal(model.generate(**inputs, **call), wanted)
    stock = {"num_beams": flags.get("num_beams", 1)}  # drafts are greedy search's tokens
    assert torch.equal(genmode.detach(model).generate(**inputs, max_new_tokens=LENGTH, **stock), wanted)


@pytest.mark.skipif(
    not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread(),
    reason="needs a timer that interrupts the main thread",
)
# Python itself drops an interrupt that falls into a finalizer, or into what others do when garbage is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment() -> None:
    """A timer interrupts 40 calls after ever longer times, wherever they are; calls that follow are right."""
    model = genmode.attach(fresh("llama"))
    inputs, call = prompt("llama", 2), {"max_new_tokens": 24, "do_sample": True, "seed": 5, "top_p": 0.9}
    before, wanted = state(model), model.generate(**inputs, **call)

    def interrupt(*_: Any) -> None:
        raise Boom

    former = signal.signal(signal.SIGALRM, interrupt)
    hit = 0
    try:
        for turn in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0012 * turn)
                model.generate(**inputs, **call)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Boom:
                hit += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert torch.is_grad_enabled()
            if turn % 4 == 0:
                assert torch.equal(model.generate(**inputs, **call), wanted)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert hit >= 5
    assert state(model) == before
    assert torch.equal(model.generate(**inputs, **call), wanted)


class ArgmaxOfTwo(genmode.Strategy):
    """A strategy of the program's own that keeps the last margin, so that calls would disturb each other."""

    contract_version = 1

    def decode(self, session: Any, params: Any) -> None:
        self.margin = None
        for step in session.steps():
            best = step.scores.topk(2).values
            margin = best[:, 0] - best[:, 1]
            if self.margin is not None and len(self.margin) != session.rows:
                raise RuntimeError("another call's rows")
            self.margin = margin
            step.commit(step.scores.argmax(-1))


WAYS: tuple[dict[str, Any], ...] = (
    {"do_sample": False},
    {"do_sample": True, "seed": 1, "top_p": 0.8},
    {"num_beams": 3},
    {"num_beams": 2, "do_sample": True, "seed": 2},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"strategy": "contrastive_search", "penalty_alpha": 0.6, "top_k": 3},
    {"prompt_lookup_num_tokens": 3},
    {"strategy": "suffix_lookup"},
    {"do_sample": True, "seed": 3, "dry_multiplier": 0.8, "temperature": 0.9},
    {"strategy": ArgmaxOfTwo, "repetition_penalty": 1.2},
)


def test_eight_threads_times_fifty_calls_give_the_single_threaded_results() -> None:
    """Ten ways with five prompts each on one model; every thread runs all fifty, each in another order."""
    model = tiny("llama")
    calls = [({"input_ids": ids(1 + place % 2, 4 + place, seed=place)}, way) for way in WAYS for place in range(5)]
    assert len(calls) == 50

    def decode(number: int) -> Tensor:
        inputs, way = calls[number]
        found: Tensor = genmode.generate(model, **inputs, **way, max_new_tokens=3)
        return found

    serial = [decode(number) for number in range(50)]
    wrong: list[tuple[int, int]] = []
    done: list[int] = []
    start = threading.Barrier(8)

    def work(place: int) -> None:
        start.wait(60)
        for turn in range(50):
            number = (7 * turn + 6 * place) % 50
            if not torch.equal(decode(number), serial[number]):
                wrong.append((place, number))
            done.append(number)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(done) == sorted([*range(50)] * 8)
