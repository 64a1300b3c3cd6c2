"""What `grammar=` may be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

import genmode
from genmode_processors.grammar import Grammar
from genmode_processors.grammar.requests import Wanted, wanted

from .support import generate, model, needs, prompts, texts, tokenizer


class Pet(pydantic.BaseModel):
    """A pydantic model with one inside it."""

    class Owner(pydantic.BaseModel):
        initial: str = pydantic.Field(pattern="^[A-Z]$")

    legs: int = pydantic.Field(ge=0, le=9)
    owner: Owner


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"regex": "a+"}, "regex", "a+"),
        (re.compile("a+"), "regex", "a+"),
        ({"ebnf": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
        ({"lark": 'start: "a"'}, "lark", 'start: "a"'),
        (["a", "b"], "choices", '["a", "b"]'),
        ({"choices": ("a",)}, "choices", '["a"]'),
        ({"json_schema": '{"type": "null"}'}, "json_schema", '{"type": "null"}'),
        ({"json_schema": {"type": "null"}}, "json_schema", '{"type": "null"}'),
        ({"type": "null"}, "json_schema", '{"type": "null"}'),
        ({}, "json_schema", "{}"),
    ],
    ids=["regex", "pattern", "ebnf", "lark", "list", "choices", "text", "schema", "bare schema", "any JSON"],
)
def test_forms(given: Any, kind: Any, text: str) -> None:
    assert wanted(given) == Wanted(kind, text)
    assert wanted(wanted(given).plain()) == Wanted(kind, text)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("a+", "say which"),
        (3, "is no grammar"),
        ([], "at least one"),
        (["a", ""], "at least one character"),
        (["a", 1], "strings"),
        ({"regex": ""}, "not empty"),
        ({"regex": 3}, "text"),
        ({"json_schema": "{"}, "no JSON"),
        ({"json_schema": "[]"}, "is an object"),
        ({"type": {1}}, "cannot be written as JSON"),
        ({"speling": 1}, "neither a JSON schema"),
        ({"regex": "a", "ebnf": "b"}, "neither a JSON schema"),
        (re.compile("a", re.IGNORECASE), "has flags"),
        (re.compile(b"a"), "bytes"),
        ({"regex": "[[:alpha:]]"}, "read differently"),
        ({"regex": "[a&&b]"}, "read differently"),
    ],
    ids=[str(number) for number in range(16)],
)
def test_what_is_none(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        wanted(given)
    with pytest.raises(genmode.ParameterError, match=told):
        generate(given)


def test_pydantic_class() -> None:
    needs("llguidance")
    for text in generate(Pet, 8, do_sample=True, seed=list(range(8))):
        assert 0 <= Pet.model_validate_json(text).legs <= 9


def test_a_config_saves_and_loads_it(tmp_path: Path) -> None:
    config = genmode.GenerationConfig(grammar={"regex": "[ab]{3}"}, grammar_engine="llguidance")
    config.save_pretrained(tmp_path)
    loaded = genmode.GenerationConfig.from_pretrained(tmp_path)
    assert loaded.grammar == {"regex": "[ab]{3}"}
    assert [info.name for info in loaded.needs()] == ["grammar"]
    needs("llguidance")
    found = genmode.generate(model(), **prompts(1), tokenizer=tokenizer(), generation_config=loaded, max_new_tokens=9)
    assert re.fullmatch("[ab]{3}", texts(found, 1)[0])


def test_params_hold_plain_data() -> None:
    assert Grammar(grammar=Pet).params.grammar.keys() == {"json_schema"}
    assert repr(Grammar(grammar=["a", "b"])) == "grammar(grammar={'choices': ['a', 'b']})"
