"""BestOfN: equal to plain Python over separate calls, and forwards that get narrower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import prompt, tiny, tokenizer
from genmode_strategies.best_of_n import best, complement

from ..registry.session.scorer_support import classifier

FLAGS: dict[str, Any] = {"max_new_tokens": 14, "top_k": 0, "pad_token_id": 0}


@torch.no_grad()
def mean_log_p(model: Any, prompt_ids: Tensor, decoded: list[int]) -> float:
    """Of decoded tokens, the mean log-probability of the model."""
    ids = torch.cat([prompt_ids, torch.tensor(decoded)])[None]
    log_p = model(ids).logits[0, len(prompt_ids) - 1 : -1].float().log_softmax(-1)
    return float(log_p.gather(1, torch.tensor(decoded)[:, None]).mean())


Reward = Callable[[list[int]], float]


def nothing(ids: list[int]) -> float:
    return 0.0


def in_plain_python(
    model: Any, prompt_ids: Tensor, seed: int, n: int, every: int, ends: list[int], reward: Reward = nothing
) -> list[list[int]]:
    """The candidates of separate calls, worst half by worst half; what is left, best first."""
    texts: list[list[int]] = []
    for row in genmode.generate(
        model, prompt_ids[None], seed=seed, do_sample=True, num_return_sequences=n, eos_token_id=ends or None, **FLAGS
    ).tolist():
        decoded = row[len(prompt_ids) :]
        end = next((i + 1 for i, token in enumerate(decoded) if token in ends), len(decoded))
        texts.append(decoded[:end])
    left = list(range(n))

    def worth(i: int, length: int) -> float:
        return -mean_log_p(model, prompt_ids, texts[i][:length]) - reward(prompt_ids.tolist() + texts[i][:length])

    for length in range(every, FLAGS["max_new_tokens"] + 1, every):
        if all(len(texts[i]) < length for i in left) or len(left) == 1:
            break
        ranked = sorted(left, key=lambda i: worth(i, length))
        left = sorted(ranked[: len(left) - len(left) // 2])
    return [texts[i] for i in sorted(left, key=lambda i: worth(i, len(texts[i])))]


@pytest.mark.parametrize("ends", [[], list(range(50, 60))], ids=["no end", "ends"])
@pytest.mark.parametrize(("n", "every"), [(8, 4), (5, 3), (1, 2)])
def test_equals_plain_python(n: int, every: int, ends: list[int]) -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)
    seeds = [3, 14, 15]
    found = genmode.generate(
        model, **inputs, strategy="best_of_n", best_of=n, best_of_every=every, seed=seeds, eos_token_id=ends or None,
        **FLAGS,
    )  # fmt: skip
    for row, seed in enumerate(seeds):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        expected = in_plain_python(model, ids, seed, n, every, ends)[0]
        assert found[row, inputs["input_ids"].shape[1] :][: len(expected)].tolist() == expected


def test_results_best_first() -> None:
    model, inputs = tiny("llama"), prompt("llama", 1)
    found = genmode.generate(
        model, **inputs, strategy="best_of_n", best_of=6, best_of_every=5, seed=2, num_return_sequences=3, **FLAGS
    )  # fmt: skip
    means = [mean_log_p(model, inputs["input_ids"][0], row[9:]) for row in found.tolist()]
    assert len(means) == 3
    assert means == sorted(means, reverse=True)


class Evens:
    """The share of even tokens among the last eight."""

    def __call__(self, texts: list[Tensor]) -> list[float]:
        return [self.of(text.tolist()) for text in texts]

    def of(self, ids: list[int]) -> float:
        return sum(token % 2 == 0 for token in ids[-8:]) / 8


EVENS = genmode.Scoring(Evens(), reads_ids=True)


def call(scorer: Any, weight: float = 1.0, seed: Any = 5, rows: int = 3, **flags: Any) -> Tensor:
    found: Tensor = genmode.generate(
        tiny("llama"), **prompt("llama", rows), strategy="best_of_n", best_of=8, best_of_every=4, seed=seed,
        best_of_scorer=scorer, best_of_weight=weight, **{**FLAGS, **flags},
    )  # fmt: skip
    return found


class TestScorer:
    def test_weight_zero_is_no_scorer(self) -> None:
        def never(texts: list[str]) -> list[float]:
            raise AssertionError("a scorer of weight 0 is not asked")

        assert torch.equal(call(never, 0), call(None))
        assert torch.equal(call(lambda texts: [3.0] * len(texts), tokenizer=tokenizer()), call(None))  # all the same

    @pytest.mark.parametrize("weight", [3.0, 20.0, -4.0])
    @pytest.mark.parametrize("ends", [[], list(range(50, 60))], ids=["no end", "ends"])
    def test_equals_plain_python(self, weight: float, ends: list[int]) -> None:
        inputs, seeds = prompt("llama", 3), [3, 14, 15]
        found = call(EVENS, weight, seeds, eos_token_id=ends or None)
        assert not torch.equal(found, call(None, seed=seeds, eos_token_id=ends or None))
        for row, seed in enumerate(seeds):
            ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
            expected = in_plain_python(
                tiny("llama"), ids, seed, 8, 4, ends, lambda read: weight * EVENS.scorer.of(read)
            )[0]  # fmt: skip
            assert found[row, 9:][: len(expected)].tolist() == expected

    def test_a_classifier_steers(self) -> None:
        """A sign test over 40 seeds: a scorer of no effect passes with a probability below 0.004."""
        judge = classifier("Llama", 2)

        def liked(found: Tensor) -> Tensor:
            return judge(input_ids=found).logits.log_softmax(-1)[:, 1]

        inputs = {"input_ids": prompt("llama", 1)["input_ids"].repeat(40, 1)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        scoring = genmode.Scoring(judge, label="LABEL_1")
        with_it, without = (
            genmode.generate(
                tiny("llama"),
                **inputs,
                strategy="best_of_n",
                best_of=4,
                best_of_scorer=one,
                seed=list(range(40)),
                **FLAGS,
            )
            for one in (scoring, None)
        )
        with torch.no_grad():
            higher = liked(with_it) - liked(without)
        assert (higher > 0).sum() - (higher < 0).sum() >= 18
        assert higher.mean() > 0.1

    def test_a_weight_of_nothing_is_refused(self) -> None:
        with pytest.raises(genmode.ParameterError, match="weight of best_of_scorer, which is not given"):
            call(None, 2.0)

    def test_a_scorer_that_fails_keeps_what_was_decoded(self) -> None:
        with pytest.raises(genmode.DecodingError, match="returned nan for row 0") as raised:
            call(lambda texts: [float("nan")] * len(texts), tokenizer=tokenizer())
        assert raised.value.sequences is not None
        assert raised.value.sequences.shape == (24, 13)


def test_forwards_get_narrower() -> None:
    seen: list[int] = []
    model = tiny("llama")
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    with hook:
        genmode.generate(model, **prompt("llama", 2), strategy="best_of_n", best_of=8, best_of_every=3, seed=1, **FLAGS)
    assert seen == [2, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 2, 2]


def test_ranking_by_hand() -> None:
    values = torch.tensor([1.0, 3.0, 3.0, 2.0, 5.0, -1.0, 4.0, 5.0])
    assert best(values, 2, 2).tolist() == [1, 2, 4, 7]
    assert best(values, 1, 3).tolist() == [4, 7, 6]
    assert complement(torch.tensor([1, 3]), 5).tolist() == [0, 2, 4]
