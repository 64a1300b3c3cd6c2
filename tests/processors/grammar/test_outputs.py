"""Every output is a text of its grammar: 200 of each kind and engine, under each way of decoding."""

from __future__ import annotations

import json
from typing import Any

import pytest

from genmode_processors.grammar import Grammar

from .support import ANY_GRAMMAR, CASES, ENGINES, GRAMMARS, generate, is_regex, is_schema, is_sum, needs, tokenizer

COUNTS = {"lm-format-enforcer": 40}
"""It is slow; all others have 200."""


@pytest.mark.parametrize(("engine", "kind"), CASES)
class TestAllHold:
    def check(self, engine: str, kind: str, found: list[str]) -> None:
        wrong = [text for text in found if not GRAMMARS[kind][1](text)]
        assert (len(found), wrong) == (COUNTS.get(engine, 200), [])
        assert len(set(found)) > 20  # not the same few all over

    def test_sampling(self, engine: str, kind: str) -> None:
        needs(engine)
        count = COUNTS.get(engine, 200)
        found = generate(GRAMMARS[kind][0], count, engine, do_sample=True, top_k=0, seed=list(range(count)))
        self.check(engine, kind, found)

    def test_four_beams(self, engine: str, kind: str) -> None:
        needs(engine)
        found = generate(GRAMMARS[kind][0], COUNTS.get(engine, 200) // 4, engine, num_beams=4, num_return_sequences=4)
        self.check(engine, kind, found)

    def test_prompt_lookup_at_batch_8(self, engine: str, kind: str) -> None:
        needs(engine)
        found: list[str] = []
        for call in range(COUNTS.get(engine, 200) // 8):
            seeds = [8 * call + row for row in range(8)]
            more: Any = {"prompt_lookup_num_tokens": 6, "do_sample": True, "top_k": 0, "seed": seeds}
            found += generate(GRAMMARS[kind][0], 8, engine, **more)
        self.check(engine, kind, found)

    def test_one_object_after_the_other_strategies(self, engine: str, kind: str) -> None:
        needs(engine)
        grammar = Grammar(grammar=GRAMMARS[kind][0], grammar_engine=engine)
        found: list[str] = []
        ways: list[dict[str, Any]] = [
            {"do_sample": True, "top_k": 0},
            {"num_beams": 2, "num_return_sequences": 2, "do_sample": True},
            {"prompt_lookup_num_tokens": 4, "do_sample": True, "top_k": 0, "num_return_sequences": 2},
        ]
        for call in range(COUNTS.get(engine, 200) // 10):
            way = ways[call % 3]
            found += generate(grammar, 10 // way.get("num_return_sequences", 1), **way, seed=call)
            assert grammar.results == ("complete",) * 10
        self.check(engine, kind, found)


@pytest.mark.parametrize("engine", ENGINES)
def test_choices(engine: str) -> None:
    needs(engine)
    choices = ["yes", "no", 'a "quoted" one', "née", "a", "ab"]
    found = generate(choices, 60, engine, do_sample=True, top_k=0, seed=1)
    found += generate(choices, 60, engine, do_sample=True, top_k=0, temperature=3.0, seed=list(range(60)))
    assert set(found) <= set(choices)
    assert len(set(found)) > 3


@pytest.mark.parametrize("engine", ANY_GRAMMAR)
def test_lark(engine: str) -> None:
    needs(engine)
    lark = 'start: term (op term)~0..2\nop: " + " | " * "\nterm: NUM | "(" NUM (op NUM)? ")"\nNUM: /0|[1-9][0-9]{0,2}/'
    assert all(is_sum(text) for text in generate({"lark": lark}, 50, engine, do_sample=True, seed=list(range(50))))


STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sample": {"do_sample": True},
    "min_p": {"do_sample": True, "min_p": 0.1, "repetition_penalty": 1.2},
    "beam_sample": {"num_beams": 3, "do_sample": True},
    "group_beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constrained": {"num_beams": 4, "strategy": "constrained_beam_search"},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "suffix_lookup": {"strategy": "suffix_lookup"},
    "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    "early_exit": {"assistant_early_exit": 1, "strategy": "assisted_generation"},
}


@pytest.mark.parametrize("way", STRATEGIES)
@pytest.mark.parametrize("kind", GRAMMARS)
def test_every_strategy(way: str, kind: str) -> None:
    needs("llguidance")
    grammar, more = Grammar(grammar=GRAMMARS[kind][0]), STRATEGIES[way]
    if way == "constrained":
        word = {"regex": "-", "json_schema": "{", "ebnf": " "}[kind]
        more = {**more, "force_words_ids": [tokenizer().encode(word)]}
    found = generate(grammar, 6, **more)
    assert all(GRAMMARS[kind][1](text) for text in found), found
    assert grammar.results == ("complete",) * 6


def test_the_validators_refuse_what_is_none() -> None:
    assert is_regex("aa-red-123")
    assert not any(map(is_regex, ("a-red-123", "aa-red-12", "aa-red-1234", "aa-pink-123")))
    assert is_sum("(10 * 0) + 7")
    assert is_sum("1 + 2 * 3")
    assert not any(map(is_sum, ("", "01 + 2", "1 + 2 + 3 + 4", "(1", "1)", "(1 + 2 + 3)", "1000", "1+2", "1 + ", "()")))
    whole = {"name": "ab", "true": True, "tags": ["a b"], "inner": {"list": [{"k": "x"}]}}
    assert is_schema(json.dumps(whole))
    for key, value in (("name", "ab2"), ("true", 1), ("tags", ["b"]), ("inner", {"list": [{}]}), ("x", 1)):
        assert not is_schema(json.dumps({**whole, key: value}))
    assert not is_schema(json.dumps(whole)[:-1])
