"""Each check of watermarkers catches one that is wrong in that way alone, and passes one that is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.testing import check_component, checks

from .test_row_checks import WRONG_PROCESSORS
from .wrong import variant

VOCAB = 100


class KitGreen(genmode.Watermarker):
    """Raises half of the vocabulary, chosen by the key and the token before; counts how often it was chosen."""

    contract_version = 1
    name = "kit_green"
    paper = "Kirchenbauer et al. 2023, A Watermark for Large Language Models, https://arxiv.org/abs/2301.10226"

    class Params(genmode.Params):
        kit_strength: float = Field(4.0, ge=0, le=9, description="added to the green tokens' scores")
        key: int = Field(15485863, ge=1, description="the secret")

    def green(self, before: Tensor, tokens: Tensor) -> Tensor:
        """Whether tokens are green behind others, of their common shape, bool."""
        mixed = (before * 1_000_003 + tokens * 7_919 + self.params.key) * 2_654_435_761
        return (mixed >> 13) % 97 % 2 == 0

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        last = history.tokens.gather(1, (history.lengths - 1)[:, None])  # [rows, 1]
        return scores + self.params.kit_strength * self.green(last, torch.arange(scores.shape[1]))

    def detect(self, tokens: Tensor) -> list[genmode.Detection]:
        pairs = (tokens[:, 1:] >= 0) & (tokens[:, :-1] >= 0)  # [texts, length - 1]
        green = (self.green(tokens[:, :-1], tokens[:, 1:]) & pairs).sum(1).tolist()
        return [self.judge(g, n) for g, n in zip(green, pairs.sum(1).tolist(), strict=True)]

    def judge(self, green: int, count: int) -> genmode.Detection:
        """The exact binomial tail; a token is green with probability 49 / 97."""
        rate = 49 / 97
        tail = sum(math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(green, count + 1))
        return genmode.Detection(score=float(green), p_value=min(1.0, tail), tokens=count)


def judging(function: Callable[[int, int], float]) -> type[Any]:
    """A watermarker whose p-values are `function(green, scored)`."""
    return variant(
        KitGreen, judge=lambda self, green, n: genmode.Detection(score=green, p_value=function(green, n), tokens=n)
    )


def detecting(function: Callable[..., Any]) -> type[Any]:
    return variant(KitGreen, detect=function)


def compares_texts(self: Any, tokens: Tensor) -> Any:
    found = KitGreen.detect(self, tokens)
    mean = sum(one.p_value for one in found) / len(found)
    return [one.model_copy(update={"p_value": min(1.0, one.p_value / (2 * mean + 1e-9))}) for one in found]


def scores_padding(self: Any, tokens: Tensor) -> Any:
    return KitGreen.detect(self, tokens.clamp(min=0))


def divides_by_length(self: Any, tokens: Tensor) -> Any:
    return [one.model_copy(update={"score": one.score / one.tokens}) for one in KitGreen.detect(self, tokens)]


def remembers(self: Any, session: Any) -> None:
    self.calls = 1


def remembering(self: Any, tokens: Tensor) -> Any:
    found = KitGreen.detect(self, tokens)
    return [one.model_copy(update={"p_value": one.p_value / 2}) for one in found] if hasattr(self, "calls") else found


def overwrites(self: Any, tokens: Tensor) -> Any:
    tokens[:, 0] = 0
    return KitGreen.detect(self, tokens)


class NotSecret(genmode.Params):
    kit_strength: float = Field(4.0, ge=0, description="added to the green tokens' scores")
    kit_number: int = Field(15485863, ge=1, description="a key that does not say so")


WRONG: dict[str, type[Any]] = {
    "detection_type": detecting(lambda self, tokens: [0.5] * len(tokens)),
    "p_values_in_range": judging(lambda green, n: 2.0 - green / max(n, 1)),
    "round_trip": variant(KitGreen, process=lambda self, scores, history: scores),
    "wrong_key": variant(KitGreen, green=lambda self, before, tokens: (before + tokens * 7) % 97 % 2 == 0),
    "false_positives": judging(lambda green, n: 0.5 ** (green / 2)),
    "p_values_uniform": judging(lambda green, n: 1.0 if green < 0.7 * n else 0.001),
    "texts_independent": detecting(compares_texts),
    "padding_ignored": detecting(scores_padding),
    "no_text": detecting(divides_by_length),
    "detects_alone": variant(KitGreen, begin=remembers, detect=remembering),
    "texts_untouched": detecting(overwrites),
    "key_hidden": variant(KitGreen, __repr__=lambda self: f"kit_green({self.params.key})"),
}


def test_every_check_has_a_wrong_watermarker() -> None:
    """Those that watermarkers share with processors are tried on processors."""
    assert set(WRONG) | set(WRONG_PROCESSORS) == {one.name for one in checks("watermarkers")}
    assert len(WRONG) >= 10


@pytest.mark.parametrize("name", WRONG)
def test_the_check_catches_it(name: str) -> None:
    report = check_component(WRONG[name], only=[name], raises=False)
    assert [one.status for one in report.outcomes] == ["failed"], str(report)


def test_a_key_has_to_be_called_one() -> None:
    wrong = variant(KitGreen, Params=NotSecret, green=lambda self, before, tokens: (before + tokens) % 2 == 0)
    report = check_component(wrong, only=["wrong_key", "key_hidden"], raises=False)
    assert all("no parameter is a secret" in one.message for one in report.failures)
    assert len(report.failures) == 2


def test_a_right_watermarker_passes_them_all() -> None:
    report = check_component(KitGreen)
    assert [one.check.name for one in report.outcomes if one.status == "skipped"] == []
