"""One table of the names that `generate` takes itself, and what follows from it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import genmode
from genmode.contract import COMPONENT_KINDS, Kind
from genmode.plugins.call_keys import CALL_KEYS, CONFIG_NAMING, NAMING, OWN_ARGUMENTS, RESERVED, SAVED
from genmode.plugins.parameters import is_foreign, named_components
from genmode.plugins.registry import Registry


def test_every_argument_of_generate_is_in_the_table() -> None:
    arguments = inspect.signature(genmode.generate).parameters.values()
    assert {one.name for one in arguments if one.kind is not one.VAR_KEYWORD} <= RESERVED


def test_every_kind_of_component_has_its_argument() -> None:
    assert {name: kinds[0] for name, kinds in NAMING.items()} == {kind.argument: kind for kind in COMPONENT_KINDS}
    assert Kind.HOOKS.argument == ""


def test_what_follows_by_hand() -> None:
    assert set(OWN_ARGUMENTS) - RESERVED == {
        "prefix_allowed_tokens_fn", "negative_prompt_ids", "negative_prompt_attention_mask",
    }  # fmt: skip
    assert {"strategy", "processors", "criteria", "draft", "verify", "genmode"} == SAVED
    assert SAVED - {"genmode"} == CONFIG_NAMING
    assert not [name for name, key in CALL_KEYS.items() if key.saved and not key.reserved]


@pytest.mark.parametrize(
    ("key", "foreign"),
    [("xtc_probability", True), ("top_k", False), ("strategy", False), ("genmode", False), ("_carried", False)],
)
def test_which_keys_of_a_config_may_be_a_components(key: str, foreign: bool) -> None:
    assert is_foreign(key) is foreign


def test_a_name_is_looked_up_in_all_kinds_that_its_argument_takes(parts: Registry) -> None:
    given: dict[str, Any] = {
        "strategy": "power", "processors": ["xtc", "kgw", "nothing", max], "criteria": None, "watermark": ("kgw", "xtc"),
    }  # fmt: skip
    assert named_components(given, parts) == [
        ("strategies", "power"),
        ("processors", "xtc"),
        ("watermarkers", "kgw"),
        ("processors", "nothing"),
        ("watermarkers", "kgw"),
        ("processors", "xtc"),
    ]
