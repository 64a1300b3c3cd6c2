"""Chains of pure processors: told apart by what they do, and independent of the tokens so far."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest
import torch

import genmode
from genmode.contract.history import History
from genmode.session.chain import Chain
from genmode.session.links import link
from genmode.session.noise import SeededNoise
from genmode.session.pure_chain import PureChain, best_processed, drawn_for_seeds


class Halve(genmode.LogitsProcessor):
    contract_version = 1
    traits = frozenset({genmode.Trait.PURE})

    class Params(genmode.Params):
        by: float = 2.0
        among: Any = None

    def process(self, scores: torch.Tensor, history: genmode.History) -> torch.Tensor:
        return scores / self.params.by


class Counts(genmode.LogitsProcessor):
    contract_version = 1

    def process(self, scores: torch.Tensor, history: genmode.History) -> torch.Tensor:
        return scores + history.tokens.shape[1]


def pure(*processors: genmode.LogitsProcessor) -> PureChain | None:
    """The chain of these, if it is pure."""
    return Chain([link(one, 0, "the test") for one in processors]).pure


def test_a_chain_equals_another_of_the_same_parameters_alone() -> None:
    assert pure(Halve(by=2.0)) == pure(Halve(by=2.0))
    assert pure(Halve(by=2.0)) != pure(Halve(by=3.0))
    assert pure(Halve()) != pure(Halve(), Halve())
    assert len({pure(Halve(by=by)) for by in (2.0, 2.0, 3.0)}) == 2


def test_what_is_not_pure_or_cannot_be_told_apart_makes_no_chain() -> None:
    assert pure(Halve(), Counts()) is None
    assert pure(Halve(among=[1])) is None


def test_scores_by_hand() -> None:
    chain = pure(Halve(by=2.0), Halve(by=4.0))
    assert chain is not None
    logits = torch.tensor([[8.0, 16.0, 0.0]])
    assert chain(logits).tolist() == [[1.0, 2.0, 0.0]]
    tokens, scores = best_processed(logits, chain)
    assert (tokens.tolist(), scores.tolist()) == ([1], [[1.0, 2.0, 0.0]])
    assert logits.tolist() == [[8.0, 16.0, 0.0]]


def test_draws_for_seeds_are_those_of_the_session() -> None:
    chain = pure()
    assert chain is not None
    keys, decoded = torch.tensor([5, 6, 7]), torch.tensor([0, 3, 9])
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    noise = SeededNoise(keys)
    noise.decoded = decoded
    expected = (logits.softmax(-1) / noise.exponential_full(logits)).argmax(-1)
    assert torch.equal(drawn_for_seeds(logits, keys, decoded, chain)[0], expected)


def test_a_failure_names_the_processor() -> None:
    class Broken(Halve):
        def process(self, scores: torch.Tensor, history: genmode.History) -> torch.Tensor:
            raise ValueError("no")

    chain = pure(Broken())
    assert chain is not None
    with pytest.raises(genmode.DecodingError, match=r"'broken' \(from the test\) failed in process: ValueError: no"):
        chain(torch.zeros(1, 3))


def test_the_built_in_ones_do_not_look_at_the_tokens() -> None:
    names: list[str] = []
    for entry in importlib.metadata.distribution("genmode").entry_points:
        if entry.group != "genmode.processors":
            continue
        cls = entry.load()
        if genmode.Trait.PURE not in cls.traits:
            continue
        names.append(entry.name)
        scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
        some = History(torch.randint(0, 50, (2, 9)), None, torch.tensor([0, 2]), 4, 9)
        chain = pure(cls())
        assert chain is not None, entry.name
        assert torch.equal(chain(scores), cls().process(scores.clone(), some)), entry.name
    assert {"temperature", "top_k", "top_p", "min_p", "typical_p"} <= set(names)
