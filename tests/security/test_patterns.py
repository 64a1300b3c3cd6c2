"""What a text, or who writes a pattern, a grammar or a schema, can have a call do."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import genmode
from genmode_processors.criteria import stop_regex
from genmode_processors.grammar import bounds, installed

from ..processors.grammar.support import generate, model, prompts, tokenizer

COUNTERS = "((a{1000}){1000}){1000}"
BLOWS_UP = "(a|aa)+$"
"""Searching a text of a and one other character takes twice as long for each a more."""


def only(*characters: str) -> dict[str, Any]:
    """A flag by which nothing but these are decoded."""
    ids = tokenizer().convert_tokens_to_ids(list(characters))
    return {"prefix_allowed_tokens_fn": lambda row, tokens: ids}


def then(character: str, after: int) -> dict[str, Any]:
    """A flag by which the a's end with another character after so many, and then the text ends."""
    ids = tokenizer().convert_tokens_to_ids([*"a" * after, character, "<eos>"])
    start = prompts(1)["input_ids"].shape[1]
    return {"prefix_allowed_tokens_fn": lambda row, tokens: [ids[min(len(tokens) - start, after + 1)]]}


def stopped(pattern: str, **more: Any) -> torch.Tensor:
    inputs = more.pop("inputs", prompts(1))
    found: torch.Tensor = genmode.generate(
        model(), **inputs, tokenizer=tokenizer(), stop_regex=pattern, **{"max_new_tokens": 60, **more}
    )
    return found


@pytest.mark.parametrize("prompt", [COUNTERS, BLOWS_UP, "a" * 200 + "b", "(" * 200], ids=lambda text: text[:12])
def test_a_prompt_is_neither_a_pattern_nor_searched(prompt: str) -> None:
    inputs = dict(tokenizer()([prompt], return_tensors="pt"))
    begin = time.process_time()
    length = inputs["input_ids"].shape[1]
    assert stopped(BLOWS_UP, inputs=inputs, max_new_tokens=4, **only("c")).shape == (1, length + 4)
    found = genmode.generate(
        model(), **inputs, tokenizer=tokenizer(), max_new_tokens=4, grammar={"regex": "[cd]{3}"}, dry_multiplier=0.8,
        no_repeat_ngram_size=3, stop_strings=["zz"],
    )  # fmt: skip
    assert set(tokenizer().decode(found[0, length:], skip_special_tokens=True)) <= set("cd")
    assert time.process_time() - begin < 20


def test_a_text_that_a_pattern_blows_up_on_ends_the_call_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_regex, "SECONDS", 0.2)
    begin = time.process_time()
    with pytest.raises(genmode.DecodingError, match=r"stop_regex: searching .* takes more than 0\.2 seconds") as caught:
        stopped("(a|aa)+b", **only("a"), max_new_tokens=200)
    assert time.process_time() - begin < 60
    assert caught.value.sequences is not None
    assert caught.value.sequences.shape[1] > prompts(1)["input_ids"].shape[1] + 20  # what was decoded is not lost


@pytest.mark.parametrize("form", ["stop_regex", "regex", "pattern"])
def test_what_a_few_characters_count_is_refused(form: str) -> None:
    forms = {"regex": {"regex": COUNTERS}, "pattern": {"type": "string", "pattern": f"^{COUNTERS}$"}}
    with pytest.raises(genmode.ParameterError, match="written out; at most"):
        _ = stopped(COUNTERS) if form == "stop_regex" else generate(forms[form], 1)


DEEP = "(" * 3000 + "a" + ")" * 3000


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize("form", ["stop_regex", "regex", "pattern", "schema", "ebnf", "lark"])
def test_what_stands_deep_within_itself_is_refused(form: str) -> None:
    forms: dict[str, Any] = {
        "regex": {"regex": DEEP}, "pattern": {"type": "string", "pattern": f"^{DEEP}$"}, "schema": nested(3000),
        "ebnf": {"ebnf": "root ::= " + DEEP.replace("a", '"a"')}, "lark": {"lark": "start: " + DEEP.replace("a", '"a"')},
    }  # fmt: skip
    with pytest.raises(genmode.ParameterError) as caught:
        _ = stopped(DEEP) if form == "stop_regex" else generate(forms[form], 1)
    assert "cannot prepare" not in str(caught.value)


@pytest.mark.parametrize("engine", ["outlines-core", "lm-format-enforcer"])
@pytest.mark.parametrize("form", ["states", "doubling"])
def test_compiling_that_does_not_end_is_given_up(engine: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine not in installed():
        pytest.skip(f"{engine} is not installed")
    if engine == "lm-format-enforcer" and form == "doubling":
        pytest.skip("it walks a schema as it is")
    monkeypatch.setattr(bounds, "SECONDS", 1)
    monkeypatch.setattr(bounds, "MEGABYTES", 512)
    with pytest.raises(genmode.ParameterError, match=f"it takes {engine} more than 1 seconds or 512 megabytes"):
        generate({"regex": "[ab]*a[ab]{30}"} if form == "states" else nested(60), 1, engine)


def test_a_grammar_that_is_used_up_spoils_no_other_call() -> None:
    if "llguidance" not in installed():
        pytest.skip("llguidance is not installed")
    grammar = {"regex": "((a|aa){0,90}){0,90}b"}
    with pytest.raises(genmode.DecodingError, match="too much for llguidance"):
        generate(grammar, 1, "llguidance", 100, **then("b", 99))
    assert generate(grammar, 1, "llguidance", 100, **then("b", 5)) == ["aaaaab"]
