"""Each check of watermarkers catches one that is wrong in that way alone, and passes one that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.testing import check_component, checks_of
from genmode.watermark import Bernoulli

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

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        before = torch.nn.functional.pad(tokens[:, :-1], (1, 0), value=-1)  # [texts, length]
        values = self.green(before, tokens).double().masked_fill((before < 0) | (tokens < 0), torch.nan)
        return genmode.Evidence(values, draws=torch.arange(tokens.shape[1]).expand_as(tokens))

    def null(self) -> Any:
        return Bernoulli(49 / 97)


class Judging(Bernoulli):
    """A null distribution whose tail is `function(green, counted)`."""

    def __init__(self, function: Callable[[int, int], float]) -> None:
        super().__init__(49 / 97)
        self.function = function

    def tail(self, values: Tensor, weights: Tensor | None) -> float:
        return self.function(int(values.sum()), len(values))


def judging(function: Callable[[int, int], float]) -> type[Any]:
    return variant(KitGreen, null=lambda self: Judging(function))


def reading(function: Callable[[Any, Tensor], Any]) -> type[Any]:
    """A watermarker whose evidence is `function(self, tokens)`."""
    return variant(KitGreen, evidence=lambda self, tokens, statistic: function(self, tokens))


class Unknown(Bernoulli):
    """A null distribution that has no mean."""

    def __init__(self) -> None:
        super().__init__(49 / 97)
        self.mean = float("nan")


def compares_texts(self: Any, tokens: Tensor) -> Any:
    values, draws, _ = KitGreen.evidence(self, tokens, None)
    return genmode.Evidence(values if len(tokens) == 1 else 1 - values, draws)


def scores_padding(self: Any, tokens: Tensor) -> Any:
    values, draws, _ = KitGreen.evidence(self, tokens, None)
    return genmode.Evidence(values - (tokens < 0).sum(1, keepdim=True), draws)


def needs_two_tokens(self: Any, tokens: Tensor) -> Any:
    tokens[:, 1]
    return KitGreen.evidence(self, tokens, None)


def remembers(self: Any, context: Any) -> None:
    self.calls = 1


def remembering(self: Any, tokens: Tensor) -> Any:
    values, draws, _ = KitGreen.evidence(self, tokens, None)
    return genmode.Evidence(1 - values if hasattr(self, "calls") else values, draws)


def overwrites(self: Any, tokens: Tensor) -> Any:
    tokens[:, 0] = 0
    return KitGreen.evidence(self, tokens, None)


class NotSecret(genmode.Params):
    kit_strength: float = Field(4.0, ge=0, description="added to the green tokens' scores")
    kit_number: int = Field(15485863, ge=1, description="a key that does not say so")


WRONG: dict[str, type[Any]] = {
    "detection_type": variant(KitGreen, null=lambda self: Unknown()),
    "p_values_in_range": judging(lambda green, n: 0.5 - green / max(n, 1)),
    "round_trip": variant(KitGreen, process=lambda self, scores, history: scores),
    "wrong_key": variant(KitGreen, green=lambda self, before, tokens: (before + tokens * 7) % 97 % 2 == 0),
    "false_positives": judging(lambda green, n: 0.5 ** (green / 2)),
    "p_values_uniform": judging(lambda green, n: 1.0 if green < 0.7 * n else 0.001),
    "texts_independent": reading(compares_texts),
    "padding_ignored": reading(scores_padding),
    "no_text": reading(needs_two_tokens),
    "detects_alone": variant(
        KitGreen, begin=remembers, evidence=lambda self, tokens, statistic: remembering(self, tokens)
    ),
    "texts_untouched": reading(overwrites),
    "key_hidden": variant(KitGreen, __repr__=lambda self: f"kit_green({self.params.key})"),
}


def test_every_check_has_a_wrong_watermarker() -> None:
    """Those that watermarkers share with processors are tried on processors."""
    assert set(WRONG) | set(WRONG_PROCESSORS) == {one.name for one in checks_of("watermarkers")}
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
