"""A secret is not shown: not printed, not written, not pickled, not said in an error."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field, ValidationError, field_validator, model_validator

import genmode
from genmode.errors import ParameterError
from genmode.plugins.parameters import build_params, check_params
from genmode.plugins.registry import Registry
from genmode.plugins.secrets import Secret, guarded, reveal, without_secrets
from genmode.testing.harness.models import tiny

TOLD = "s3cr3t-words"
PROMPT = torch.tensor([[5, 6, 7, 8], [8, 9, 10, 11]])


class Secretive(genmode.Strategy):
    contract_version = 1

    class Params(genmode.Params):
        api_key: str | None = Field(None, max_length=40)
        pass_keys: dict[str, int] | None = None
        seen_with: float = 0.0

        @field_validator("api_key")
        @classmethod
        def _words(cls, value: str | None) -> str | None:
            if value == f"{TOLD}!":
                raise ValueError(f"{value} has a mark at its end")
            return value

        @model_validator(mode="after")
        def _together(self) -> Secretive.Params:
            if self.seen_with < 0:
                raise ValueError(f"{self.api_key} and {self.seen_with}")
            return self

    def decode(self, session: Any, params: Any) -> None:
        assert params.api_key == TOLD
        for step in session.steps():
            step.commit(step.scores.argmax(-1))


@pytest.fixture
def secretive() -> Any:
    from genmode.testing.harness.host import isolated_host

    with isolated_host(Secretive) as registry:
        yield registry


def test_a_secret_by_hand() -> None:
    secret = Secret(TOLD)
    assert (str(secret), repr(secret), f"{secret}") == ("***", "***", "***")
    assert secret == TOLD == reveal(secret)
    assert secret == Secret(TOLD) != Secret("other")
    assert copy.deepcopy([secret])[0] is secret is copy.copy(secret)
    with pytest.raises(TypeError, match="JSON"):
        json.dumps({"key": secret})
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)
    assert guarded("key", secret) is secret
    assert guarded("bias", 3) == 3
    assert guarded("key", None) is None
    assert without_secrets("1 of 98765", {"key": 98765, "a_key": 1, "bias": "of"}) == "1 of ***"


def test_a_pickle_leaves_a_secret_behind_and_says_so_when_it_is_needed() -> None:
    left = pickle.loads(pickle.dumps(Secret(TOLD)))
    assert left != Secret(None) != TOLD
    assert left != TOLD
    with pytest.raises(ParameterError, match="left behind"):
        left.reveal()


def test_a_call_uses_it_and_its_plan_and_config_hide_it(secretive: Registry) -> None:
    given = {"strategy": "secretive", "api_key": TOLD, "pass_keys": {"one": 98765}, "max_new_tokens": 2}
    config = genmode.GenerationConfig(**given)
    for call in ({"generation_config": config}, given):
        assert genmode.generate(tiny("llama"), PROMPT, **call).shape[1] == PROMPT.shape[1] + 2
        plan = genmode.explain(tiny("llama"), PROMPT, **call)
        for shown in (str(plan), repr(plan), str(plan.to_dict()), json.dumps(plan.to_dict()), pickle.dumps(plan)):
            assert TOLD not in str(shown)
            assert "98765" not in str(shown)
    assert config.api_key == TOLD
    assert config.update(api_key=f"{TOLD}?") == {}
    for shown in (str(config), str(vars(config)), str(config.to_dict()), config.to_json_string(), pickle.dumps(config)):
        assert TOLD not in str(shown)
    with pytest.raises(ParameterError, match="left behind"):
        genmode.generate(tiny("llama"), PROMPT, generation_config=pickle.loads(pickle.dumps(config)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": TOLD * 9},
        {"api_key": f"{TOLD}!"},
        {"api_key": [TOLD]},
        {"pass_keys": {TOLD: "x"}},
        {"pass_keys": {"x": TOLD}},
        {"api_key": TOLD, "seen_with": -1.0},
        {"api_key": TOLD, "seen_with": "much"},
        {"api_key": TOLD, "apl_key": TOLD},
    ],
    ids=str,
)
def test_what_is_wrong_is_said_without_the_value(wrong: dict[str, Any]) -> None:
    for check in (build_params, check_params):
        with pytest.raises(ParameterError) as caught:
            check(Secretive, wrong)
        assert TOLD not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None or TOLD not in repr(caught.value.__context__)


def test_pydantics_own_error_has_no_value() -> None:
    with pytest.raises(ValidationError, match="at most 40 characters") as caught:
        Secretive(api_key=TOLD * 9)
    assert TOLD not in str(caught.value)


def test_what_was_built_of_a_secret_is_not_pickled_but_copied() -> None:
    made = Secretive(api_key=TOLD)
    for one in (made, made.params):
        with pytest.raises(ParameterError, match="api_key would stand in the pickle"):
            pickle.dumps(one)
    assert copy.deepcopy(made).params.api_key == TOLD
    assert pickle.loads(pickle.dumps(Secretive.Params(seen_with=1.0))).seen_with == 1.0


SECRETIVE = {"scheme": "kgw", "key": TOLD, "more": [{"password": 98765}]}
MARKS: dict[str, Callable[[], Any]] = {
    "strategy": lambda: genmode.generate(tiny("llama"), PROMPT, strategy=SECRETIVE),
    "criteria": lambda: genmode.generate(tiny("llama"), PROMPT, criteria=[SECRETIVE], max_new_tokens=2),
    "processors": lambda: genmode.generate(tiny("llama"), PROMPT, processors=[SECRETIVE], max_new_tokens=2),
    "strategy of a config": lambda: genmode.GenerationConfig(strategy=SECRETIVE),
    "processors of a config": lambda: genmode.GenerationConfig(processors=[SECRETIVE]),
    "header of a config": lambda: genmode.GenerationConfig.from_dict({"genmode": SECRETIVE}),
    "watermarking_config": lambda: genmode.GenerationConfig(watermarking_config=98765),
    "dict": lambda: genmode.generate(tiny("llama"), PROMPT, watermark={"scheme": "kgw", "key": TOLD}),
    "list of a dict": lambda: genmode.generate(tiny("llama"), PROMPT, watermark=[{"key": TOLD}]),
    "number": lambda: genmode.generate(tiny("llama"), PROMPT, watermark=98765),
    "text": lambda: genmode.generate(tiny("llama"), PROMPT, watermark=TOLD),
    "bytes": lambda: genmode.generate(tiny("llama"), PROMPT, watermark=TOLD.encode()),
    "detect, text": lambda: genmode.detect(torch.ones(1, 9).long(), TOLD),
    "detect, number": lambda: genmode.detect(torch.ones(1, 9).long(), 98765),
    "detect, dict": lambda: genmode.detect(torch.ones(1, 9).long(), {"scheme": "kgw", "key": TOLD}),
    "scheme": lambda: genmode.WatermarkingConfig(98765),  # type: ignore[arg-type]
    "scheme, text": lambda: genmode.WatermarkingConfig(TOLD, bias=1.0).build(),
    "key_from, text": lambda: genmode.WatermarkingConfig("kgw", key_from=TOLD),
    "key_from, number": lambda: genmode.WatermarkingConfig("kgw", key_from=98765),  # type: ignore[arg-type]
    "key_from, both": lambda: genmode.WatermarkingConfig("kgw", key=TOLD, key_from=TOLD),
    "key, wrong type": lambda: genmode.WatermarkingConfig("kgw", key=[TOLD]).build(),
    "keys": lambda: genmode.WatermarkingConfig("synthid", keys=TOLD).build(),
    "config": lambda: genmode.GenerationConfig(watermarking_config={"scheme": "kgw", "key": [TOLD]}),
}


@pytest.mark.parametrize("given", MARKS)
def test_a_key_given_the_wrong_way_is_not_repeated(given: str) -> None:
    with pytest.raises(genmode.GenmodeError) as caught:
        MARKS[given]()
    text = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value.__context__)
    assert TOLD not in text
    assert "98765" not in text


def test_a_secret_inside_of_a_parameter_is_hidden_too() -> None:
    class Nested(genmode.LogitsProcessor):
        contract_version = 1

        class Params(genmode.Params):
            service: dict[str, Any] = Field(default_factory=dict)

        def process(self, scores: Any, history: Any) -> Any:
            return scores

    made = Nested(service={"url": "here", "api_key": TOLD, "more": {"password": TOLD}})
    plan = genmode.explain(tiny("llama"), PROMPT, processors=made, max_new_tokens=2)
    for text in (repr(made), repr(made.params), str(plan)):
        assert TOLD not in text
        assert "here" in text


def test_a_watermarks_key_is_in_none_of_its_pickles() -> None:
    mark = genmode.WatermarkingConfig("kgw", key=TOLD, context_width=1)
    config = genmode.GenerationConfig(watermarking_config=mark, max_new_tokens=2)
    for one in (mark, config, genmode.explain(tiny("llama"), PROMPT, watermark=mark, do_sample=True, max_new_tokens=2)):
        assert TOLD.encode() not in pickle.dumps(one)
        assert TOLD not in str(vars(one))
    with pytest.raises(ParameterError, match="left behind"):
        pickle.loads(pickle.dumps(mark)).build()
    with pytest.raises(ParameterError, match="not pickled"):
        pickle.dumps(mark.build())
    assert copy.deepcopy(mark) == mark != genmode.WatermarkingConfig("kgw", key="other", context_width=1)
