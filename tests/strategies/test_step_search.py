"""StepSearch: which rows stay and fork, the optimum by enumeration, steps of different lengths, batches."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import VOCAB, prompt, tiny
from genmode_strategies.step_search import judged_now, ranks

FLAGS: dict[str, Any] = {"max_new_tokens": 14, "top_k": 0, "pad_token_id": 0}
ENDS = list(range(50, 60))
STOPS = list(range(60, 80))
"""Tokens with which a sentence of `words()` ends."""


@functools.cache
def words() -> Any:
    """A tokenizer whose tokens are words, some with a full stop."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", *(f"w{n}{'.' if n in STOPS else ''}" for n in range(1, VOCAB))]
    made = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")


def worth(ids: list[int]) -> float:
    """A number that looks random, for ids without the prompt."""
    return hash(tuple(ids)) % 10007 / 10007


class Judge:
    """Scores by `worth`, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[list[int]]] = []

    def __call__(self, texts: list[Tensor]) -> list[float]:
        self.asked.append([text.tolist() for text in texts])
        return [worth(ids) for ids in self.asked[-1]]

    @property
    def scoring(self) -> genmode.Scoring:
        return genmode.Scoring(self, reads_ids=True, prompt=False)


def search(inputs: dict[str, Tensor], judge: Any, **flags: Any) -> Tensor:
    """The decoded part of a call."""
    found: Tensor = genmode.generate(
        tiny("llama"),
        **inputs,
        strategy="step_search",
        step_search_scorer=judge,
        **{"tokenizer": words(), **FLAGS, **flags},
    )
    return found[:, inputs["input_ids"].shape[1] :]


def cut(row: list[int], ends: list[int]) -> list[int]:
    """A row up to the token that ends it."""
    return row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))]


def is_over(ids: list[int], ends: list[int]) -> bool:
    return ids[-1] in ends or len(ids) == FLAGS["max_new_tokens"]


def followed(asked: list[list[list[int]]], ends: list[int], rows: int, keep: int, until: Any) -> tuple[list[int], int]:
    """Check that what a judge is asked behind each step follows from the step before.

    Returns:
        The result that follows, and how often a text that had ended stayed beside others that had not.
    """
    over: list[list[int]] = []  # texts that have ended, and are among the best
    copies: dict[tuple[int, ...], int] = {(): rows}  # texts that go on, and how often
    stayed = 0
    for texts in asked:
        for ids in texts:
            (parent,) = [one for one in copies if tuple(ids[: len(one)]) == one]
            step = ids[len(parent) :]
            if until == "sentence":
                assert not set(step[:-1]) & set(STOPS)
                assert step[-1] in STOPS or is_over(ids, ends)
            else:
                assert len(step) == until or is_over(ids, ends)
            copies[parent] -= 1
        assert set(copies.values()) == {0}
        best = sorted([*over, *texts], key=worth, reverse=True)[:keep]
        over = [ids for ids in best if is_over(ids, ends)]
        copies = {
            tuple(ids): rows // keep + (place < rows % keep) for place, ids in enumerate(best) if not is_over(ids, ends)
        }
        stayed += bool(over and copies)
    assert not copies  # all had ended when the judge was asked last
    return max(over, key=worth), stayed


@pytest.mark.parametrize("ends", [[], list(range(50, 56))], ids=["no end", "ends"])
@pytest.mark.parametrize(("rows", "keep", "until"), [(6, 2, 3), (7, 3, 4), (5, 1, 5), (4, 4, 2), (6, 2, "sentence")])
def test_the_best_stay_and_go_on(rows: int, keep: int, until: Any, ends: list[int]) -> None:
    steps = stayed = 0
    for seed in range(8):
        judge = Judge()
        found = search(
            prompt("llama", 1), judge.scoring, seed=seed, step_search_rows=rows, step_search_keep=keep,
            step_search_until=until, eos_token_id=ends or None, temperature=3.0,  # so that no text comes twice
        )  # fmt: skip
        result, beside = followed(judge.asked, ends, rows, keep, until)
        assert cut(found[0].tolist(), ends) == result
        steps, stayed = steps + len(judge.asked), stayed + beside
    assert steps > 16
    assert stayed or not ends or keep == 1


@pytest.mark.parametrize("until", [1, 2])
def test_a_perfect_judge_finds_the_optimum(until: int) -> None:
    """By enumeration of all 3^4 texts, whatever the seed: each step has each of its 3 or 9 texts among 64 rows each."""
    allowed, length = [5, 6, 7], 4
    every = [list(one) for one in itertools.product(allowed, repeat=length)]

    def hoped(texts: list[Tensor]) -> list[float]:
        """The best that may still come of a text."""
        return [max(worth(one) for one in every if one[: len(ids)] == ids.tolist()) for ids in texts]

    best = max(every, key=worth)
    for seed in range(6):
        found = search(
            prompt("llama", 1), genmode.Scoring(hoped, reads_ids=True, prompt=False), seed=seed, max_new_tokens=length,
            step_search_rows=128, step_search_keep=2, step_search_until=until, temperature=100.0,
            prefix_allowed_tokens_fn=lambda row, ids: allowed,
        )  # fmt: skip
        assert found.tolist() == [best]


@pytest.mark.parametrize("until", [3, "sentence"])
@pytest.mark.parametrize("more", [{}, {"eos_token_id": ENDS}, {"banned_phrases": ["w7", "w31 w30"]}])
def test_a_batch_gives_what_single_calls_give(until: Any, more: dict[str, Any]) -> None:
    inputs, seeds = prompt("llama", 3), [4, 5, 6]
    flags = {"step_search_rows": 5, "step_search_until": until, "num_return_sequences": 2, **more}
    together = search(inputs, Judge().scoring, seed=seeds, **flags).tolist()
    assert len({len(cut(row, ENDS)) for row in together}) > 1 or "eos_token_id" not in more
    for row, seed in enumerate(seeds):
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        alone = search(one, Judge().scoring, seed=[seed], **flags).tolist()
        ends = more.get("eos_token_id", [])
        assert [cut(ids, ends) for ids in together[2 * row : 2 * row + 2]] == [cut(ids, ends) for ids in alone]


def test_without_a_boundary_it_is_the_best_of_n_and_results_come_best_first() -> None:
    samples = genmode.generate(
        tiny("llama"), **prompt("llama", 1), do_sample=True, num_return_sequences=6, seed=8, **FLAGS
    )[:, 9:].tolist()  # fmt: skip
    found = search(
        prompt("llama", 1),
        Judge().scoring,
        seed=8,
        step_search_rows=6,
        step_search_until="line",
        num_return_sequences=3,
    )
    assert found.tolist() == sorted(samples, key=worth, reverse=True)[:3]


def test_results_may_be_more_than_the_rows() -> None:
    found = search(prompt("llama", 2), Judge().scoring, seed=8, step_search_rows=2, num_return_sequences=3)
    assert found.shape[0] == 6


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"step_search_scorer": None}, "step_search needs step_search_scorer="),
        ({"step_search_rows": 2, "step_search_keep": 3}, r"step_search_keep=3 rows cannot stay of step_search_rows=2"),
        ({"step_search_until": "sentence", "tokenizer": None}, "end with a sentence need the tokenizer"),
        ({"step_search_until": 0}, "step_search_until"),
        ({"step_search_until": "word"}, "step_search_until"),
    ],
)
def test_what_cannot_be_is_refused(flags: dict[str, Any], error: str) -> None:
    with pytest.raises(genmode.ParameterError, match=error):
        genmode.generate(
            tiny("llama"), **prompt("llama", 1), strategy="step_search",
            **{"step_search_scorer": Judge().scoring, "tokenizer": words(), **FLAGS, **flags},
        )  # fmt: skip


def test_ranking_by_hand() -> None:
    inputs = torch.tensor([2, 0, 2, 0, 1, 2])
    assert ranks(torch.tensor([1.0, 5.0, 3.0, 5.0, -torch.inf, 3.0]), inputs).tolist() == [2, 0, 0, 1, 0, 1]
    ended = torch.tensor([True, True, True, False, True, True])
    done = torch.tensor([True, True, False, False, True, True])
    assert judged_now(inputs, ended, done).tolist() == [True, False, True, False, False, True]
