"""Traces: by hand with a clock that counts, identity of results, nesting, threads, and nothing when off."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import genmode
from genmode import tracing
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import ids, prompt, tiny

INPUTS = prompt("llama", 2)


class Ticks:
    """A clock that moves only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(tracing.time, "perf_counter", lambda: self.now)

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def test_time_goes_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks(monkeypatch)
    clock = tracing.Clock()
    outer, inner = clock.part("strategy"), clock.part("forward")
    clock.enter(outer)
    ticks.pass_(1)
    clock.timed(inner, lambda: ticks.pass_(10))()
    ticks.pass_(2)
    clock.timed(inner, lambda: ticks.pass_(10))()
    with pytest.raises(OSError, match="gone"):
        clock.timed(inner, lambda: (_ for _ in ()).throw(OSError("gone")))()
    clock.finish()
    assert (outer.seconds, outer.runs) == (3, 1)
    assert (inner.seconds, inner.runs) == (20, 3)
    assert clock.call.seconds == 23


class Slow(genmode.LogitsProcessor):
    """Takes two seconds of the ticking clock for each step."""

    contract_version = 1
    ticks: Any = None

    def process(self, scores: Any, history: Any) -> Any:
        self.ticks.pass_(2)
        return scores


class Never(genmode.StoppingCriterion):
    contract_version = 1

    def check(self, history: Any) -> Any:
        Slow.ticks.pass_(3)
        return torch.zeros(history.rows, dtype=torch.bool)


def test_a_call_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    Slow.ticks = Ticks(monkeypatch)

    class Sink:
        def put(self, value: Any) -> None:
            Slow.ticks.pass_(5)

        def end(self) -> None:
            Slow.ticks.pass_(7)

    with genmode.trace() as traced:
        genmode.generate(
            tiny("llama"),
            **INPUTS,
            max_new_tokens=4,
            processors=[Slow],
            criteria=[Never],
            streamer=Sink(),
            do_sample=False,
        )
    (call,) = traced.calls
    spent = {part.kind: (part.runs, part.seconds) for part in call.parts}
    assert spent["processor"][1] == 4 * 2
    assert spent["criterion"][1] == 4 * 3
    assert spent["streamer"] == (6, 5 * 5 + 7)  # the prompt, four tokens, the end
    assert spent["forward"] == (4, 0)
    assert spent["strategy"] == (1, 0)
    assert (call.steps, call.rows, call.error) == (4, 2, "")
    assert call.seconds == 8 + 12 + 32


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    "fused sampling": {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
    "seeded": {"do_sample": True, "seed": 3, "top_p": 0.9, "repetition_penalty": 1.2},
    "beams": {"num_beams": 3, "no_repeat_ngram_size": 2, "max_time": 100.0},
    "drafting": {"prompt_lookup_num_tokens": 3, "repetition_penalty": 1.2, "eos_token_id": 51},
    "look": {"strategy": "contrastive_search", "penalty_alpha": 0.6, "top_k": 4},
    "criteria": {"do_sample": False, "criteria": [Never], "num_beams": 2},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_results_are_the_same_and_times_add_up(way: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Slow.ticks = Ticks(monkeypatch)
    monkeypatch.undo()
    model, inputs = tiny(family), prompt(family, 2)
    torch.manual_seed(0)
    stock = genmode.generate(model, **inputs, **WAYS[way], max_new_tokens=8)
    plan = genmode.explain(model, **inputs, **WAYS[way], max_new_tokens=8)
    torch.manual_seed(0)
    with genmode.trace() as traced:
        assert torch.equal(genmode.generate(model, **inputs, **WAYS[way], max_new_tokens=8), stock)
    (call,) = traced.calls
    assert (call.strategy, call.why, call.engine, call.origin) == (plan.strategy, plan.why, plan.engine, plan.origin)
    shown = [(part.name, part.stage, part.origin) for part in call.parts if part.kind == "processor"]
    assert shown == [(part.name, part.stage, part.origin) for part in plan.processors]
    assert call.criteria == list(plan.criteria)
    assert sum(part.seconds for part in call.parts) == pytest.approx(call.seconds)
    assert all(part.runs for part in call.parts)
    assert next(part for part in call.parts if part.kind == "forward").runs >= 1


def test_a_second_model_is_timed_apart() -> None:
    with genmode.trace() as traced:
        genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=6, assistant_model=tiny("qwen2"))
    kinds = {(part.kind, part.name) for part in traced.calls[0].parts}
    assert {("forward", ""), ("forward", "beside the model")} <= kinds


def test_as_text_and_as_data() -> None:
    with genmode.trace() as traced:
        genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3, do_sample=True, top_p=0.9)
        genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3)
    text = str(traced)
    for part in (
        "strategy sample (genmode ",
        "processor top_p",
        "truncation",
        "engine static",
        "prepare",
        "forward",
        "all",
    ):
        assert part in text
    data = traced.model_dump()
    assert [call["strategy"] for call in data["calls"]] == ["sample", "greedy_search"]
    assert json.loads(json.dumps(data)) == data


def test_which_hook_plugin_resolved_it() -> None:
    class Picks:
        @genmode.hookimpl
        def genmode_resolve_strategy(self, flags: Any) -> str:
            return "sample"

        @genmode.hookimpl
        def genmode_session_step(self, session: Any, step: Any) -> None: ...

    with use(Registry()) as host, genmode.trace() as traced:
        host.register(Picks(), kind="hooks", name="picks")
        genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3)
    (call,) = traced.calls
    assert call.why == f"chosen by hook plugin 'picks' of this program ({__file__})"
    assert next(part for part in call.parts if part.kind == "hooks").runs == 3


def test_a_call_that_fails_is_traced_up_to_there() -> None:
    class Fails(genmode.LogitsProcessor):
        contract_version = 1

        def process(self, scores: Any, history: Any) -> Any:
            raise OSError("gone")

    with genmode.trace() as traced:
        with pytest.raises(genmode.DecodingError, match=r"processor 'fails' .from the caller. failed in process"):
            genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3, processors=[Fails])
        with pytest.raises(genmode.ParameterError):
            genmode.generate(tiny("llama"), **INPUTS, temprature=1.0)
    first, second = traced.calls
    assert (first.strategy, first.steps) == ("greedy_search", 1)
    assert first.error.startswith("DecodingError: processor 'fails'")
    assert (second.strategy, second.steps) == ("", 0)
    assert second.error.startswith("ParameterError")
    assert "error: ParameterError" in str(traced)


def test_nested_blocks_streams_and_threads() -> None:
    model = tiny("llama")
    with genmode.trace() as outer:
        list(genmode.stream(model, ids(1, 5), max_new_tokens=2))  # decodes in a thread of its own
        with genmode.trace() as inner:
            genmode.generate(model, ids(1, 5), max_new_tokens=2)
        thread = threading.Thread(target=genmode.generate, args=(model, ids(1, 5)), kwargs={"max_new_tokens": 2})
        thread.start()
        thread.join()
        genmode.generate(model, ids(1, 5), max_new_tokens=2)
    genmode.generate(model, ids(1, 5), max_new_tokens=2)
    assert (len(outer.calls), len(inner.calls)) == (2, 1)
    assert [part.kind for part in outer.calls[0].parts].count("streamer") == 1


def test_eight_threads_have_traces_of_their_own() -> None:
    shared = Quiet()
    found: dict[int, Any] = {}

    def work(place: int) -> None:
        with genmode.trace() as traced:
            for _ in range(3):
                genmode.generate(tiny("llama"), ids(1, 5, place), max_new_tokens=2 + place, processors=[shared])
        found[place] = traced

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {place: [call.steps for call in one.calls] for place, one in found.items()} == {
        place: [2 + place] * 3 for place in range(8)
    }
    runs = {
        place: [p.runs for c in one.calls for p in c.parts if p.kind == "processor"] for place, one in found.items()
    }
    assert runs == {place: [2 + place + 2] * 3 for place in range(8)}  # begin, each step, reset


class Quiet(genmode.LogitsProcessor):
    """Stateless, so that one object may serve several calls at once."""

    contract_version = 1

    def process(self, scores: Any, history: Any) -> Any:
        return scores


def test_off_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Iterator[Any]:
        raise AssertionError("no call of this test is traced")

    monkeypatch.setattr(tracing.Timed, "__init__", refuse)
    monkeypatch.setattr(tracing.Clock, "__init__", refuse)
    genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3, top_p=0.9, do_sample=True)
