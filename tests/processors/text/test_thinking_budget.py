"""A budget for thinking."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genmode
from genmode_processors.text.thinking_budget import ThinkingBudget

from ..rows_support import byte_tokenizer, context, history, ragged, run

NOT = -math.inf
START, END = [7, 8], [9, 10, 11]


def forced(rows: list[list[int]], budget: int, prompt: int = 1, **more: Any) -> list[int | None]:
    """The token that each row is forced to take."""
    processor = ThinkingBudget(thinking_budget=budget, think_start=START, think_end=END)
    result = run(processor, torch.ones(len(rows), 12), ragged(rows, prompt), **more)
    tokens: list[int | None] = []
    for row in result:
        if row.isneginf().any():
            (token,) = (~row.isneginf()).nonzero()[:, 0].tolist()
            assert row[token].item() == 0
            tokens.append(token)
        else:
            assert row.tolist() == [1.0] * 12
            tokens.append(None)
    return tokens


# numbers checkable by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([0, 7, 8, 1], None),
        ([0, 7, 8, 1, 2], 9),  # two tokens thought
        ([0, 7, 8, 1, 2, 9], 10),
        ([0, 7, 8, 1, 2, 9, 10], 11),
        ([0, 7, 8, 1, 2, 9, 10, 11], None),  # over
        ([0, 7, 8, 1, 9], 10),  # an end that the model began is completed
        ([0, 7, 8, 1, 9, 2], 9),  # one that it dropped is begun again
        ([0, 1, 2, 3, 4], None),  # no thinking
        ([0, 7, 8, 1, 9, 10, 11, 2, 2, 2], None),  # thought within its budget
        ([0, 7, 8, 9, 10, 11, 7, 8, 3, 3], 9),  # thinks again
        ([7, 8, 3, 3], 9),  # begun by the prompt
    ],
)
def test_the_end_is_forced_behind_the_budget(tokens: list[int], expected: int | None) -> None:
    assert forced([tokens], 2) == [expected]


def test_a_budget_of_nothing_ends_thinking_at_once() -> None:
    assert forced([[0, 7, 8], [0, 7], [0]], 0) == [9, None, None]


def test_left_padding_does_not_think() -> None:
    processor = ThinkingBudget(thinking_budget=0, think_start=[3], think_end=[4])
    assert not run(processor, torch.zeros(1, 6), history([[3, 3, 1]], starts=[2])).any()


# properties ------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(6, 11), max_size=20), min_size=1, max_size=3), st.integers(0, 5))
def test_no_row_thinks_longer_than_its_budget(choices: list[list[int]], budget: int) -> None:
    """Decode with the processor; what it forces overrides the choices."""
    for wishes in choices:
        row = [0]
        for wish in wishes:
            must = forced([row], budget)[0]
            row.append(wish if must is None else must)
        while (must := forced([row], budget)[0]) is not None:
            row.append(must)
        begun = None
        for at in range(len(row)):
            if row[at - 1 : at + 1] == START:
                begun = at + 1
            if begun is not None and at >= begun + 2 and row[at - 2 : at + 1] == END:
                begun = None
            assert begun is None or at + 1 - begun <= budget + len(END) - 1


@given(st.lists(st.lists(st.integers(6, 11), min_size=1, max_size=9), min_size=1, max_size=4), st.integers(0, 4))
def test_each_row_is_as_if_alone(rows: list[list[int]], budget: int) -> None:
    assert forced(rows, budget) == [forced([row], budget)[0] for row in rows]


# markers and bad input -------------------------------------------------------------------------------


def test_markers_may_be_text() -> None:
    tokenizer = byte_tokenizer(["<think>", "</think>"])
    start, end = (tokenizer.encode(text, add_special_tokens=False) for text in ("<think>", "</think>"))
    past = history([[0, *start, 1, 1]], prompt=1)
    result = run(ThinkingBudget(thinking_budget=2), torch.zeros(1, len(tokenizer)), past, tokenizer=tokenizer)
    assert (~result.isneginf()).nonzero().tolist() == [[0, end[0]]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "'<think>' is text and there is no tokenizer"),
        ({"think_start": [1], "think_end": [99]}, r"think_end: \[99\] outside the vocabulary of 12"),
    ],
)
def test_markers_that_cannot_occur_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(genmode.ParameterError, match=message):
        ThinkingBudget(thinking_budget=1, **keys).begin(context(history([[0]])))
    with pytest.raises(ValueError, match="think_start"):
        ThinkingBudget(thinking_budget=1, think_start="")


def test_a_tokenizer_that_does_not_know_the_marker_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    with pytest.raises(genmode.ParameterError, match="no tokens for '<think>'"):
        ThinkingBudget(thinking_budget=1).begin(context(history([[0]]), tokenizer=tokenizer))


def test_without_a_budget_nothing_changes() -> None:
    assert not run(ThinkingBudget(), torch.zeros(1, 3), history([[0]])).any()


def test_a_masked_row_is_forced_all_the_same() -> None:
    processor = ThinkingBudget(thinking_budget=0, think_start=[1], think_end=[0])
    result = run(processor, torch.full((1, 2), NOT), history([[1]]))
    assert result.tolist() == [[0.0, NOT]]


# text, however it is tokenized -------------------------------------------------------------------------


def written(text: str, budget: int, prompt: str, tokenizer: Any) -> str:
    """What comes out where the model wants to write the text and end: its next character leads, unless one is forced."""
    processor = ThinkingBudget(thinking_budget=budget)
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    begin = history([ids], prompt=len(ids))
    processor.begin(context(begin, vocab=len(tokenizer), tokenizer=tokenizer, max_length=len(ids) + 60))
    out: list[int] = []
    wishes = tokenizer.encode(text, add_special_tokens=False)
    while wishes and len(out) < 60:
        scores = torch.zeros(1, len(tokenizer))
        scores[0, wishes[0]] = 9.0
        token = int(processor.process(scores, history([ids + out], prompt=len(ids))).argmax())
        wishes = wishes[1:] if token == wishes[0] else wishes
        processor.accept(torch.tensor([token]))
        out.append(token)
    return tokenizer.decode(out)


@pytest.mark.parametrize("merges", [[], ["</"], ["think"], ["</think>"], [" <", "k>\n", ">o"], ["b </"]])
@pytest.mark.parametrize("prompt", ["<think>", "why? <think>", "<think>\n", "a<think>b</think><think>"])
def test_an_end_is_completed_and_not_begun_again(merges: list[str], prompt: str) -> None:
    tokenizer = byte_tokenizer(merges)
    for budget in range(9):
        found = written("ab</think>one", budget, prompt, tokenizer)
        assert found.count("</think>") == 1 + (found.split("</think>", 1)[0] != "ab"), (budget, found)
        assert "</" not in found.replace("</think>", ""), (budget, found)


def test_no_end_is_forced_where_no_thinking_began() -> None:
    tokenizer = byte_tokenizer(["</think>"])
    for prompt in ("why?", "<think>so</think>", "< think>", "</think>"):
        assert written("ab one", 0, prompt, tokenizer) == "ab one"


def test_tokens_are_counted_behind_the_one_in_which_thinking_begins() -> None:
    tokenizer = byte_tokenizer(["k>\n"])
    assert written("abcdef", 2, "<think>\n", tokenizer).startswith("ab</think>")
    assert written("abcdef", 2, "<think>a", tokenizer).startswith("a</think>")


def test_markers_of_ids_beside_text_stand_for_their_text() -> None:
    tokenizer = byte_tokenizer(["</think>"])
    (end,) = tokenizer.encode("</think>", add_special_tokens=False)
    processor = ThinkingBudget(thinking_budget=0, think_end=[end])
    past = history([tokenizer.encode("<think>", add_special_tokens=False)])
    result = run(processor, torch.zeros(1, len(tokenizer)), past, tokenizer=tokenizer)
    assert (~result.isneginf()).nonzero().tolist() == [[0, end]]


def test_rows_move_and_go_back() -> None:
    tokenizer = byte_tokenizer(["</think>"])
    thinking, plain = (tokenizer.encode(text, add_special_tokens=False) for text in ("<think>a", "<thinkin"))
    processor = ThinkingBudget(thinking_budget=2)
    processor.begin(context(history([thinking, plain], prompt=8), vocab=len(tokenizer), tokenizer=tokenizer))

    def is_forced(past: Any) -> list[bool]:
        return processor.process(torch.zeros(past.rows, len(tokenizer)), past).isneginf().any(1).tolist()

    processor.accept(torch.tensor([70, 70]))
    longer = history([[*thinking, 70], [*plain, 70]], prompt=8)
    assert is_forced(longer) == [True, False]
    processor.reorder(torch.tensor([1, 0, 0]))
    assert is_forced(history([[*plain, 70], [*thinking, 70], [*thinking, 70]], prompt=8)) == [False, True, True]
    processor.rollback(torch.tensor([1, 1, 0]))
    assert is_forced(ragged([plain, thinking, [*thinking, 70]], prompt=8)) == [False, False, True]
