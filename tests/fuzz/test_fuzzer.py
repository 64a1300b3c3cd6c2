"""The fuzzer sees faults that are put in its way, and shrinks the calls that show them."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pydantic
import pytest
import torch
from torch import Tensor

from genmode.contract import Kind

from . import running
from .call import Call
from .drawing import components, drawn
from .models import Named, pair
from .promises import verdict
from .report import fuzz
from .shrinking import shrunk
from .values import valid

GIVEN = Call(
    lengths=(3, 5),
    keys={"do_sample": True, "seed": [3, 4], "max_new_tokens": 4, "top_k": 20, "processors": [Named("double")]},
)


def plant(monkeypatch: pytest.MonkeyPatch, process: Callable[[Tensor, Tensor], Tensor]) -> None:
    monkeypatch.setitem(Named.OBJECTS, "double", lambda models, rows: process)


def test_a_call_is_a_line_of_python_and_the_same_each_time() -> None:
    names = {"Call": Call, "Named": Named, "inf": inf, "nan": nan}
    for index in range(300):
        call = drawn(5, index)
        assert repr(call) == repr(drawn(5, index)) == repr(eval(repr(call), names))
    assert repr(drawn(5, 1)) != repr(drawn(6, 1))


def test_most_draws_are_allowed_by_the_schema() -> None:
    rng, kinds = random.Random(1), (Kind.STRATEGIES, Kind.PROCESSORS, Kind.CRITERIA, Kind.WATERMARKERS)
    tried, refused = 0, 0  # what a component allows of several fields together, its schema does not say
    for cls in itertools.chain.from_iterable(components(kind, False) for kind in kinds):
        required = {"key": 1} if "key" in cls.Params.model_fields else {}
        for key, info in cls.Params.model_fields.items():
            for value in [valid(key, info, rng) for _ in range(10)]:
                if value is not None and not isinstance(value, Named):
                    tried += 1
                    try:
                        cls.Params(**{**required, key: value})
                    except pydantic.ValidationError:
                        refused += 1
    assert tried > 500
    assert refused < tried / 20


def test_a_right_call_keeps_every_promise() -> None:
    assert verdict(GIVEN).outcome == "result"
    assert verdict(GIVEN.with_keys({"min_k_tau": -1.0})).outcome == "ParameterError"


def test_what_changes_from_call_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = itertools.count()
    plant(monkeypatch, lambda ids, scores: scores.roll(next(turns), 1))
    found = verdict(GIVEN)
    assert found.promise == "again"
    small, told = shrunk(GIVEN, found)
    assert small == Call(lengths=(1,), keys={"processors": [Named("double")]})
    assert told.promise == "again"


def test_what_reads_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda ids, scores: scores.roll(int(ids.shape[1]), 1))
    found = verdict(GIVEN)
    assert found.promise == "alone"
    small, _ = shrunk(GIVEN, found)
    assert set(small.keys) == {"processors", "seed"}
    assert small.lengths == (1, 2)


def test_an_error_of_no_family(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(ids: Tensor, scores: Tensor) -> Tensor:
        raise KeyError("planted")

    plant(monkeypatch, fail)
    found = verdict(GIVEN)
    assert found.promise == "errors"
    assert "planted" in found.what


def test_a_banned_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_seven(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, 7] = 1000.0
        return scores

    plant(monkeypatch, raise_seven)
    found = verdict(GIVEN.with_keys({**GIVEN.keys, "suppress_tokens": [7]}))
    assert found.promise == "values"
    assert "suppressed token 7" in found.what


@pytest.mark.parametrize("what", ["model.config", "model.modules"])
def test_a_changed_model(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def change(ids: Tensor, scores: Tensor) -> Tensor:
        model: Any = pair("llama", "float32").model
        if what == "model.config":
            model.config.vocab_size = 99
        else:
            model.model.layers = torch.nn.ModuleList([*model.model.layers][:1])
        return scores

    plant(monkeypatch, change)
    assert (verdict(GIVEN).promise, verdict(GIVEN).kind) == ("model", what)
    monkeypatch.undo()
    assert verdict(GIVEN).outcome == "result"


def test_a_call_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LIMIT_S", 0.1)

    def wait(ids: Tensor, scores: Tensor) -> Tensor:
        time.sleep(0.2)
        return scores

    plant(monkeypatch, wait)
    assert verdict(GIVEN).promise == "time"


def test_the_sums_of_many_calls() -> None:
    tally = fuzz(1, range(20))
    assert sum(tally.outcomes.values()) == 20
    assert tally.outcomes["result"] > 5
    assert "20 calls" in str(tally)
