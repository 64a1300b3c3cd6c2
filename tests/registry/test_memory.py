"""A call leaves no session, cache or tensor behind, whether or not Python's garbage collector runs.

Memory of a device is freed with the last reference to its tensors; a cycle would keep it until a collection.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

import genmode
from genmode import History
from genmode.testing import RecordingStreamer, isolated_host
from genmode.testing.harness.models import fresh, near, prompt, tiny, tokenizer


@contextmanager
def only_counted() -> Iterator[None]:
    """The garbage collector is off, and looks at nothing that was there before."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def left_behind(run: Callable[[], object]) -> Counter[str]:
    """The tensors, and objects of the host's, that a run leaves alive, once caches are full."""
    run()
    with only_counted():
        run()
        kinds = [type(one) for one in gc.get_objects()]
    host = ("genmode.session", "genmode.call")
    return Counter(one.__name__ for one in kinds if issubclass(one, Tensor) or str(one.__module__).startswith(host))


class Keeps(genmode.LogitsProcessor):
    """Holds the context, its history and a model beside the rows, and forgets nothing."""

    contract_version = 1

    def begin(self, context: genmode.Context) -> None:
        self.context, self.history, self.beside = context, context.history, context.side_model(model=near("llama"))

    def process(self, scores: Tensor, history: History) -> Tensor:
        return scores + self.beside.logits()


class KeepsAsWell(genmode.StoppingCriterion):
    """Holds the context, and forgets nothing."""

    contract_version = 1

    def begin(self, context: genmode.Context) -> None:
        self.session = context

    def check(self, history: History) -> Tensor:
        return history.lengths < 0


class Fails(genmode.LogitsProcessor):
    """Works twice, then fails, and fails again when the call ends."""

    contract_version = 1
    steps = 0

    def begin(self, context: genmode.Context) -> None:
        self.session = context

    def process(self, scores: Tensor, history: History) -> Tensor:
        self.steps += 1
        if self.steps > 2:
            raise ZeroDivisionError("on purpose")
        return scores

    def reset(self) -> None:
        raise KeyError("on purpose as well")


class FailsAtTheEnd(Fails):
    """Works, and fails when the call ends."""

    def process(self, scores: Tensor, history: History) -> Tensor:
        return scores


CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "greedy_search": dict,
    "sample": lambda: {"do_sample": True, "top_p": 0.9, "min_p": 0.1},
    "seeded": lambda: {"do_sample": True, "seed": [1, 2, 3]},
    "beam_search": lambda: {"num_beams": 3, "eos_token_id": [7, 8, 9]},
    "beam_sample": lambda: {"num_beams": 2, "do_sample": True},
    "group_beam_search": lambda: {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constrained_beam_search": lambda: {"num_beams": 3, "force_words_ids": [[7]]},
    "contrastive_search": lambda: {"penalty_alpha": 0.6, "top_k": 4},
    "dola_generation": lambda: {"dola_layers": "low", "repetition_penalty": 1.2},
    "prompt_lookup": lambda: {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1},
    "suffix_lookup": lambda: {"strategy": "suffix_lookup"},
    "assisted_generation": lambda: {"assistant_model": near("llama"), "num_assistant_tokens": 3},
    "processors": lambda: {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "dry_multiplier": 1.0},
    "backtracking": lambda: {"banned_phrases": ["b2", "c"], "banned_phrases_retries": 3, "tokenizer": tokenizer()},
    "stop_strings": lambda: {"stop_strings": ["b3"], "tokenizer": tokenizer()},
    "watermark": lambda: {"watermark": genmode.WatermarkingConfig("kgw", key=7), "do_sample": True},
    "side model": lambda: {"processors": "contrastive_decoding", "amateur_model": near("llama")},
    "classifier_free_guidance": lambda: {"guidance_scale": 1.5},
    "careless": lambda: {"processors": [Keeps()], "criteria": [KeepsAsWell()]},
    "outputs": lambda: {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
    "streamer": lambda: {"streamer": RecordingStreamer()},
}


@pytest.mark.parametrize("engine", ["static", "portable"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_nothing_behind(name: str, engine: str) -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)

    def run() -> None:
        more = {"past_key_values": DynamicCache()} if engine == "portable" else {}
        genmode.generate(model, **inputs, max_new_tokens=8, **CALLS[name](), **more)

    assert left_behind(run) == {}


@pytest.mark.parametrize("family", ["t5", "mamba", "gemma3"])
def test_other_families_leave_nothing_behind(family: str) -> None:
    inputs = prompt(family, 3)
    assert left_behind(lambda: genmode.generate(tiny(family), **inputs, max_new_tokens=8)) == {}


def test_a_context_that_somebody_holds_is_counted() -> None:
    held: list[Any] = []

    class Holds(Keeps):
        contract_version = 1

        def begin(self, context: genmode.Context) -> None:
            held.append(context)

        def process(self, scores: Tensor, history: History) -> Tensor:
            return scores

    found = left_behind(
        lambda: genmode.generate(tiny("llama"), **prompt("llama", 2), max_new_tokens=4, processors=[Holds()])
    )
    assert (found["CallContext"], found["DecodeState"], found["TokenBuffer"]) == (1, 1, 1)
    assert found["StaticEngine"] == 0  # the cache has gone
    assert held[-1].history.rows == 2  # what was decoded can still be read


@pytest.mark.parametrize("processor", [Fails, FailsAtTheEnd])
@pytest.mark.filterwarnings("ignore:after the call had failed")
def test_an_error_that_is_dropped_leaves_nothing_behind(processor: type[Any]) -> None:
    def run() -> None:
        failing = [processor(), processor()]
        with pytest.raises(genmode.DecodingError, match="on purpose"):
            genmode.generate(tiny("llama"), **prompt("llama", 3), max_new_tokens=8, processors=failing)

    assert left_behind(run) == {}


def test_a_strategy_that_fails_leaves_nothing_behind() -> None:
    class Stumbles(genmode.Strategy):
        """Fails in its second step."""

        contract_version = 1

        def decode(self, session: genmode.Session, params: Any) -> None:
            self.session, self.steps = session, session.steps()
            for step in self.steps:
                step.commit(step.best() if step.index == 0 else step.best()[:, None])

    def run() -> None:
        with pytest.raises(genmode.GenmodeError):
            genmode.generate(tiny("llama"), **prompt("llama", 3), max_new_tokens=8, strategy=Stumbles)

    assert left_behind(run) == {}


@pytest.mark.parametrize("text", [False, True])
def test_a_stream_that_is_left_early_leaves_nothing_behind(text: bool) -> None:
    inputs = prompt("llama", 1)
    more = {"tokenizer": tokenizer()} if text else {}

    def run() -> None:
        stream = genmode.stream(tiny("llama"), **inputs, max_new_tokens=40, **more)
        next(stream)
        del stream

    assert left_behind(run) == {}


def test_a_stream_that_fails_leaves_nothing_behind() -> None:
    def run() -> None:
        with pytest.raises(genmode.DecodingError):
            list(genmode.stream(tiny("llama"), **prompt("llama", 1), max_new_tokens=4, processors=[FailsAtTheEnd()]))

    assert left_behind(run) == {}


def test_traces_hooks_and_attached_models_leave_nothing_behind() -> None:
    model, inputs = genmode.attach(fresh("llama")), prompt("llama", 3)
    seen: list[int] = []

    class Watcher:
        @genmode.hookimpl
        def genmode_session_step(self, session: genmode.Session, step: genmode.Step) -> None:
            seen.append(step.index)

        @genmode.hookimpl
        def genmode_session_end(self, session: genmode.Session, error: BaseException | None) -> None:
            seen.append(-1)

    with isolated_host() as host:
        host.register(Watcher(), kind="hooks", name="watcher")
        host.configure(hooks=["watcher"])

        def run() -> None:
            with genmode.trace():
                model.generate(**inputs, max_new_tokens=4, num_beams=2)

        assert left_behind(run) == {}
    assert seen[-1] == -1
    assert len(seen) == 10


def test_many_calls_take_no_more_memory_than_one() -> None:
    """Sizes, not only counts: bytes of all tensors alive after one call and after five."""
    model, inputs = tiny("llama"), prompt("llama", 3)

    def alive() -> int:
        return sum(one.nbytes for one in gc.get_objects() if issubclass(type(one), Tensor))

    genmode.generate(model, **inputs, max_new_tokens=8)
    with only_counted(), torch.no_grad():
        sizes: list[int] = []
        for _ in range(5):
            genmode.generate(model, **inputs, max_new_tokens=8)
            sizes.append(alive())
    assert sizes == [0] * 5
