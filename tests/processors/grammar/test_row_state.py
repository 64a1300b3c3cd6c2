"""Rows of a grammar: masks by hand, state under anything that may happen to rows, forced text."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmode_processors.grammar import Grammar
from genmode_processors.grammar.matchers import compiled, mask_of
from genmode_processors.grammar.requests import wanted
from genmode_processors.grammar.row_state import Row, forbid_all_but

from .support import ENGINES, model, needs, tokenizer

BOTH = {"regex": r"(ab|ac)[x-z]{0,2}d"}


def context(rows: int = 1) -> Any:
    """As much of a call as a grammar asks for."""
    words = tokenizer()
    history = SimpleNamespace()
    return SimpleNamespace(
        tokenizer=words, eos_token_ids=[words.eos_token_id], vocab_size=model().config.vocab_size, rows=rows,
        history=history, device=torch.device("cpu"), unfinished=torch.ones(rows, dtype=torch.bool),
        processors=(), pad_token_id=words.pad_token_id, prompt_length=0, max_length=99,
    )  # fmt: skip


def row(grammar: Any, engine: str = "auto") -> tuple[Row, Any]:
    """A row at the beginning, and the mask of the end."""
    needs("llguidance" if engine == "auto" else engine)
    found, vocabulary, _ = compiled(wanted(grammar), engine, False, context())
    return Row(found.matcher(), vocabulary), mask_of(vocabulary.ends, vocabulary.words)


def allowed(mask: Any) -> set[str]:
    """The tokens of a mask, by name."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return set(tokenizer().convert_ids_to_tokens(np.flatnonzero(bits[: len(tokenizer())]).tolist()))


def ids(text: str) -> list[int]:
    """One token a character."""
    return [int(tokenizer().convert_tokens_to_ids(one)) for one in text]


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_by_hand(engine: str) -> None:
    one, ends = row(BOTH, engine)
    assert allowed(one.mask(ends)) == {"a"}
    steps = [
        ("a", {"b", "c"}),
        ("b", {"x", "y", "z", "d"}),
        ("z", {"x", "y", "z", "d"}),
        ("x", {"d"}),
        ("d", {"<eos>"}),
    ]
    for character, after in steps:
        one.advance(ids(character)[0])
        assert allowed(one.mask(ends)) == after
        assert one.complete == (after == {"<eos>"})
    one.back(3)
    assert allowed(one.mask(ends)) == {"x", "y", "z", "d"}
    one.back(1)
    one.advance(ids("c")[0])  # another way than before
    assert allowed(one.mask(ends)) == {"x", "y", "z", "d"}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_end_only_where_the_text_is_complete(engine: str) -> None:
    one, ends = row({"regex": "ab?"}, engine)
    end = tokenizer().eos_token_id
    one.advance(ids("a")[0])
    assert allowed(one.mask(ends)) == {"b", "<eos>"}
    one.advance(end)
    assert (one.open, one.complete, one.dead, allowed(one.mask(ends))) == (False, True, False, {"<eos>"})
    one.advance(tokenizer().pad_token_id)  # padding
    one.back(2)
    assert one.open
    assert allowed(one.mask(ends)) == {"b", "<eos>"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_token_that_is_not_allowed_can_be_taken_back(engine: str) -> None:
    one, ends = row({"regex": "ab?"}, engine)
    for wrong in (ids("b")[0], tokenizer().eos_token_id, tokenizer().pad_token_id, model().config.vocab_size - 1):
        one.advance(wrong)
        assert (one.dead, one.complete, one.token) == (True, False, wrong)
        one.advance(ids("a")[0])
        one.back(2)
        assert (one.open, allowed(one.mask(ends))) == (True, {"a"})


@functools.cache
def plain() -> tuple[Row, Any]:
    return row({"regex": r"(a|b[cd]{1,3}|e(f|g))*h?"})


@settings(max_examples=60)
@given(st.data())
def test_state_is_a_function_of_the_tokens(data: Any) -> None:
    """Whatever happens to rows, each allows what a fresh row allows behind the same tokens."""
    root, ends = plain()
    grammar = Grammar(grammar={"regex": r"(a|b[cd]{1,3}|e(f|g))*h?"})
    here = context(3)
    grammar.begin(here)
    told: list[list[int]] = [[], [], []]
    alphabet = [*ids("abcdefgh"), tokenizer().eos_token_id, tokenizer().pad_token_id]
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(st.sampled_from(["accept", "accept", "accept", "reorder", "rollback"]))
        if what == "accept":
            tokens = data.draw(st.lists(st.sampled_from(alphabet), min_size=3, max_size=3))
            grammar.accept(torch.tensor(tokens))
            told = [[*row_, token] for row_, token in zip(told, tokens, strict=True)]
        elif what == "reorder":
            rows = data.draw(st.lists(st.integers(0, 2), min_size=3, max_size=3))
            grammar.reorder(torch.tensor(rows))
            told = [list(told[i]) for i in rows]
        else:
            counts = [data.draw(st.integers(0, len(row_))) for row_ in told]
            grammar.rollback(torch.tensor(counts))
            told = [row_[: len(row_) - count] for row_, count in zip(told, counts, strict=True)]
        scores = grammar.process(torch.zeros(3, here.vocab_size), SimpleNamespace())  # type: ignore[arg-type]
        for place, row_ in enumerate(told):
            fresh = root.copy()
            for token in row_:
                fresh.advance(token)
            expected = forbid_all_but(torch.zeros(1, here.vocab_size), fresh.mask(ends)[None])
            assert torch.equal(scores[place], expected[0])


def test_forbid_all_but_is_what_the_bits_say() -> None:
    generator = np.random.default_rng(0)
    for vocab in (31, 32, 33, 100):
        words = generator.integers(-(2**31), 2**31, (3, (vocab + 31) // 32)).astype(np.int32)
        scores = torch.randn(3, vocab)
        found = forbid_all_but(scores.clone(), words)
        for place in range(3):
            for token in range(vocab):
                kept = int(words[place, token // 32]) >> token % 32 & 1
                assert found[place, token] == (scores[place, token] if kept else -torch.inf)


class TestForced:
    def test_one_text_in_the_tokenizers_own_spelling(self) -> None:
        one, ends = row({"regex": r'[ab]\{"name":[0-9]\}'})
        assert one.forced(ends, 9) == []  # a or b
        one.advance(ids("a")[0])
        spelled = tokenizer().convert_ids_to_tokens(one.forced(ends, 9))
        assert "".join(spelled) == '{"name":'
        assert spelled == tokenizer().tokenize('{"name":')
        assert tokenizer().convert_ids_to_tokens(one.forced(ends, 2)) == spelled[:2]
        assert allowed(one.mask(ends)) == {"{"}  # nothing has happened

    def test_nothing_where_the_text_may_end(self) -> None:
        one, ends = row({"regex": "a(bc)?"})
        assert one.forced(ends, 9) == ids("a")
        one.advance(ids("a")[0])
        assert one.forced(ends, 9) == []

    def test_nothing_behind_the_end(self) -> None:
        one, ends = row({"regex": "a"})
        one.advance(ids("a")[0])
        one.advance(tokenizer().eos_token_id)
        assert one.forced(ends, 9) == []
