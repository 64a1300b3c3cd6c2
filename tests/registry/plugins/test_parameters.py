"""Keyword arguments into flags, parameters and inputs; values into Params."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import genmode
from genmode.errors import ConflictError, ParameterError
from genmode.plugins.discovery import Entry
from genmode.plugins.parameters import allowed, build_params, check_params, is_secret, select, split
from genmode.plugins.registry import Registry
from genmode.plugins.settings import Settings, closest

Source = Callable[..., str]
FLAGS = {"temperature", "top_k", "penalty_alpha", "max_new_tokens"}
INPUTS = {"input_ids", "attention_mask"}


class Sharpen(genmode.LogitsProcessor):
    contract_version = 1
    name = "sharpen"

    class Params(genmode.Params):
        sharpen_weight: float = pydantic.Field(0.5, gt=0, le=1, description="how much")
        sharpen_window: int = pydantic.Field(4, ge=1, multiple_of=2)
        sharpen_key: int = pydantic.Field(3, ge=0)
        mode: Literal["soft", "hard"] = "soft"
        temperature: float | None = None

        @pydantic.model_validator(mode="after")
        def _together(self) -> Any:
            if self.mode == "hard" and self.sharpen_weight == 1:
                raise ValueError("mode='hard' needs sharpen_weight below 1")
            return self

    def process(self, scores: Any, history: Any) -> Any:
        return scores


class Needy(genmode.Strategy):
    contract_version = 1

    class Params(genmode.Params):
        needy_depth: int

    def decode(self, session: Any, params: Any) -> None: ...


@pytest.fixture
def sharp(host: Registry) -> Registry:
    host.register(Sharpen)
    return host


def test_split_by_hand(sharp: Registry) -> None:
    parts = split({"top_k": 3, "sharpen_weight": 1.0, "input_ids": [1], "temperature": 2.0}, FLAGS, INPUTS, sharp)
    assert parts.flags == {"top_k": 3, "temperature": 2.0}
    assert parts.parameters == {"sharpen_weight": 1.0}
    assert parts.inputs == {"input_ids": [1]}
    flags, parameters, _ = parts
    assert select(Sharpen, flags, parameters) == {"temperature": 2.0, "sharpen_weight": 1.0}


def test_select_takes_the_last_source_and_leaves_out_none() -> None:
    assert select(Sharpen, {"mode": "soft", "top_k": 1}, {"mode": "hard"}) == {"mode": "hard"}
    assert select(Sharpen, {"mode": "soft"}, {"mode": None}) == {}


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sharpen_wieght", "sharpen_weight"),
        ("temprature", "temperature"),
        ("input_id", "input_ids"),
        ("Top_K", "top_k"),
    ],
)
def test_a_misspelt_key_is_answered_from_all_three_sets(sharp: Registry, key: str, near: str) -> None:
    with pytest.raises(ParameterError, match=rf"unknown argument '{key}' \(did you mean '{near}'\?\)"):
        split({key: 1, "top_k": 2}, FLAGS, INPUTS, sharp)


def test_every_unknown_key_is_named_and_what_is_not_in_use(sharp: Registry, site: Any, source: Source) -> None:
    with pytest.raises(ParameterError, match=r"'qqq', 'zzz'\. Allowed are .*components\. `genmode list`"):
        split({"qqq": 1, "zzz": 2}, FLAGS, INPUTS, sharp)
    site.plugin("plug", "processors", "dry", source("processors", "It", "dry_base: float = 1.0"))
    with pytest.raises(ParameterError, match="not in use, wholly or in part: plug"):
        split({"dry_base": 1}, FLAGS, INPUTS, site.registry(block=("dry",)))


def test_flags_and_inputs_import_no_plugin(site: Any, source: Source) -> None:
    site.plugin("plug", "processors", "dry", "raise SystemExit(9)")
    host = site.registry()
    split({"top_k": 1, "input_ids": 2}, FLAGS, INPUTS, host)
    assert "plug" not in sys.modules
    assert host.components()[0].state == "discovered"


def test_a_named_component_owns_its_keys(site: Any, source: Source) -> None:
    for home in ("plug-a", "plug-b"):
        body = f"base: float = 1.0; {home[-1]}_own: int = 0"
        site.plugin(home, "processors", home[-1], source("processors", "It", body))
    host = site.registry()
    with pytest.raises(ConflictError, match="'base' is a parameter of processor 'a' of plug-a"):
        split({"base": 2.0}, (), (), host)
    assert split({"base": 2.0}, (), (), host, named=[("processors", "b")]).parameters == {"base": 2.0}


def test_a_component_switched_on_by_one_key_must_not_lose_another_to_a_built_in(site: Any, source: Source) -> None:
    site.plugin("genmode", "processors", "own", source("processors", "It", "base: float = 1.0"))
    site.plugin("plug", "processors", "dry", source("processors", "It", "base: float = 1.0; extra: int = 0"))
    host = site.registry()
    assert split({"base": 2.0}, (), (), host).parameters == {"base": 2.0}  # the built-in's alone
    with pytest.raises(ConflictError, match="'base' is a parameter of processor 'own' of genmode"):
        split({"base": 2.0, "extra": 1}, (), (), host)
    split({"base": 2.0, "extra": 1}, (), (), host, named=[("processors", "dry")])
    split({"base": 2.0, "extra": 1}, (), (), site.registry(prefer={"parameters:base": "plug"}))


def test_build_params() -> None:
    params = build_params(Sharpen, {"sharpen_weight": 1})
    assert params == Sharpen.Params(sharpen_weight=1.0)
    assert isinstance(params, Sharpen.Params)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"sharpen_weight": 2},
            [
                "processor 'sharpen' of home 1.0",
                "sharpen_weight=2 is not allowed",
                "float, > 0, <= 1 (how much)",
            ],
        ),
        ({"sharpen_weight": "much"}, ["sharpen_weight='much'", "valid number"]),
        ({"sharpen_window": 3}, ["sharpen_window=3", "int, >= 1, a multiple of 2"]),
        ({"mode": "wild"}, ["mode='wild'", "Literal['soft', 'hard']"]),
        ({"sharpen_wieght": 2}, ["sharpen_wieght is no parameter of it; did you mean 'sharpen_weight'?"]),
        ({"mode": "hard", "sharpen_weight": 1}, ["mode='hard' needs sharpen_weight below 1"]),
        ({"mode": 1, "sharpen_window": 0}, ["sharpen_window=0", "; mode=1"]),
    ],
)
def test_a_wrong_value_says_key_given_allowed_and_component(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ParameterError) as caught:
        build_params(Sharpen, values, "home 1.0")
    for part in parts:
        assert part in str(caught.value)
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("container", [lambda one: [one], lambda one: {"a": one}], ids=["list", "dict"])
def test_a_value_that_stands_too_deep_within_itself_is_refused(container: Callable[[Any], Any]) -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = container(deep)
    with pytest.raises(ParameterError, match=r"sharpen_window.*too deep within each other"):
        build_params(Sharpen, {"sharpen_window": deep})


def test_what_is_missing_is_an_error_only_of_the_whole() -> None:
    with pytest.raises(ParameterError, match="strategy 'needy': needy_depth has to be given; allowed: int"):
        build_params(Needy, {})
    check_params(Needy, {})
    with pytest.raises(ParameterError, match="needy_depth='x'"):
        check_params(Needy, {"needy_depth": "x"})


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(ParameterError, match="sharpen_key=a secret value is not allowed") as caught:
        build_params(Sharpen, {"sharpen_key": -123456})
    assert "123456" not in str(caught.value)
    assert caught.value.__cause__ is None  # pydantic's own message would show it
    with pytest.raises(ParameterError, match="needs sharpen_weight below 1") as caught:
        build_params(Sharpen, {"sharpen_key": 123456, "mode": "hard", "sharpen_weight": 1})
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("key", True),
        ("keys", True),
        ("hashing_key", True),
        ("secret", True),
        ("keyword", False),
        ("monkey", False),
    ],
)
def test_which_keys_are_secret(key: str, secret: bool) -> None:
    assert is_secret(key) is secret


def test_what_is_allowed_in_words() -> None:
    fields = Sharpen.Params.model_fields
    assert allowed(fields["sharpen_weight"]) == "float, > 0, <= 1"
    assert allowed(fields["temperature"]) == "float | None"


keys = st.text("abc_", min_size=1, max_size=6)


@hypothesis_settings(deadline=None)
@given(st.sets(keys, max_size=6), st.sets(keys, max_size=6), st.sets(keys, max_size=6))
def test_every_key_goes_to_exactly_one_part_or_is_named(
    given_keys: set[str], flags: set[str], inputs: set[str]
) -> None:
    host = Registry([Entry("criteria", "x", "plug", "1", "m:X", "")], Settings(block=("plug",)))
    kwargs = dict.fromkeys(given_keys, 1)
    unknown = given_keys - flags - inputs
    if not unknown:
        parts = split(kwargs, flags, inputs, host)
        assert {**parts.flags, **parts.inputs} == kwargs
        assert parts.flags.keys() <= flags
        assert not parts.inputs.keys() & flags
        return
    with pytest.raises(ParameterError) as caught:
        split(kwargs, flags, inputs, host)
    for key in unknown:
        near = closest(key, flags | inputs)
        assert (f"{key!r} (did you mean {near!r}?)" if near else repr(key)) in str(caught.value)
