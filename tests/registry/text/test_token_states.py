"""An automaton that counts the letter a, three being as many as it counts, read and taken back by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from genmode.text import TokenStates

# Tokens: "a", "b", "aa"; lines: one for each, and one for ids without text. States: 0 to 3 letters.
LINES = torch.tensor([0, 1, 2, 3])
AFTER = torch.tensor([[1, 2, 3, 3], [0, 1, 2, 3], [2, 3, 3, 3], [0, 1, 2, 3]])
PROMPT = 5


def states(max_length: int = 9) -> TokenStates:
    context: Any = SimpleNamespace(prompt_length=PROMPT, max_length=max_length)
    return TokenStates(LINES, AFTER, torch.tensor([0, 1]), context)


def test_states_behind_every_token_of_rows_that_go_back() -> None:
    found = states()
    assert found.state(torch.tensor([PROMPT, PROMPT])).tolist() == [0, 1]
    found.accept(torch.tensor([0, 1]))  # a, b
    found.accept(torch.tensor([2, 2]))  # aa, aa
    assert found.state(torch.tensor([7, 7])).tolist() == [3, 3]
    assert found.state(torch.tensor([6, 5])).tolist() == [1, 1]
    found.rollback(torch.tensor([0, 2]))
    found.accept(torch.tensor([1, 0]))
    assert found.state(torch.tensor([8, 6])).tolist() == [3, 2]
    found.reorder(torch.tensor([1, 0]))
    assert found.state(torch.tensor([6, 8])).tolist() == [2, 3]


def test_ids_beyond_the_table_and_rows_beyond_the_longest_length() -> None:
    found = states(max_length=6)
    for _ in range(4):
        found.accept(torch.tensor([99, 0]))
    assert found.state(torch.tensor([6, 6])).tolist() == [0, 2]
    assert found.moved(torch.tensor([[99, 0]]), torch.tensor([[1, 1]])).tolist() == [[1, 2]]
