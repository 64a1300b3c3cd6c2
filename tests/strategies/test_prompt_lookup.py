"""Prompt lookup: drafts by hand, the tokens of greedy search and sampling, and the distribution of sampling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.testing.harness.models import FAMILIES, fresh, ids, prompt, tiny
from genmode_strategies.drafters.loop import agreeing
from genmode_strategies.drafters.prompt_lookup import look_up

from .drafting_support import BANS, change_nothing, chi_square, cyclic, forwards, history

DRAFT = {"prompt_lookup_num_tokens": 4}


class TestLookUp:
    def test_what_followed_the_last_tokens(self) -> None:
        draft, follow = look_up(*history([5, 6, 7, 8, 5, 6]), 2, 3)
        assert (draft.tolist(), follow.tolist()) == ([[7, 8, 5]], [3])

    def test_the_longest_ending_wins_over_an_earlier_shorter_one(self) -> None:
        draft, _ = look_up(*history([6, 1, 2, 5, 6, 3, 4, 5, 6]), 2, 2)
        assert draft.tolist() == [[3, 4]]

    def test_the_first_of_several_occurrences(self) -> None:
        draft, _ = look_up(*history([5, 1, 5, 2, 5]), 1, 1)
        assert draft.tolist() == [[1]]

    def test_no_occurrence(self) -> None:
        assert look_up(*history([5, 6, 7]), 2, 2)[1].tolist() == [0]

    def test_an_ending_may_overlap_its_occurrence(self) -> None:
        draft, follow = look_up(*history([5, 5, 5]), 2, 2)
        assert (draft.tolist(), follow.tolist()) == ([[5, 5]], [1])

    def test_rows_of_their_own_lengths(self) -> None:
        draft, follow = look_up(*history([5, 6, 7, 5], [8, 9, 1, 2, 3, 8], [4, 4]), 2, 2)
        assert draft[0].tolist() == [6, 7]
        assert draft[1].tolist() == [9, 1]
        assert follow.tolist() == [2, 2, 1]

    def test_padding_is_no_text(self) -> None:
        _, follow = look_up(*history([0, 0, 5, 0]), 1, 1)
        assert follow.tolist() == [1]
        _, follow = look_up(*history([0, 0, 5, 0], starts=[2]), 1, 1)
        assert follow.tolist() == [0]

    def test_agreeing(self) -> None:
        draft = torch.tensor([[1, 2, 3], [1, 2, 3], [9, 2, 3]])
        chosen = torch.tensor([[1, 2, 3, 4], [1, 5, 3, 4], [1, 2, 3, 4]])
        assert agreeing(draft, chosen).tolist() == [3, 1, 0]
        assert agreeing(None, chosen).tolist() == [0, 0, 0]


@pytest.mark.oldest
@pytest.mark.parametrize("bans", [{}, BANS], ids=["free", "banned"])
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "t5", "bart", "llava"])
def test_the_tokens_of_greedy_search(name: str, rows: int, bans: dict[str, Any]) -> None:
    change_nothing(DRAFT, tiny(name), prompt(name, rows), bans)


def test_drafts_save_forwards_and_rows_accept_different_numbers() -> None:
    model = cyclic()
    circles = torch.tensor([[50, 10, 11], [51, 20, 21], [52, 53, 54]])
    inputs = {"input_ids": circles, "attention_mask": torch.ones_like(circles)}
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 40}
    stock, plain = forwards(model, lambda: model.generate(**inputs, **flags))
    assert stock[0, 3:8].tolist() == [12, 13, 10, 11, 12]
    assert stock[1, 3:9].tolist() == [22, 23, 24, 25, 26, 20]
    ours, drafted = forwards(model, lambda: genmode.generate(model, **inputs, **flags, **DRAFT))
    assert torch.equal(ours, stock)
    assert plain == 40
    assert drafted <= 40 / 5 + 8  # 5 tokens a forward once a row has gone round its circle


@pytest.mark.parametrize(("count", "longest"), [(1, 1), (10, 3), (30, 2)])
def test_lengths_of_drafts_and_endings(count: int, longest: int) -> None:
    for name, model in (("llama", cyclic()), ("bart", tiny("bart"))):
        inputs = prompt(name, 3) if name == "bart" else {"input_ids": torch.tensor([[50, 10, 11], [51, 20, 21]])}
        flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 25}
        drafted = {"prompt_lookup_num_tokens": count, "max_matching_ngram_size": longest}
        assert torch.equal(genmode.generate(model, **inputs, **flags, **drafted), model.generate(**inputs, **flags))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_plain_processors_and_criteria_at_every_position(name: str, rows: int) -> None:
    class Sinking(transformers.LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            counts = torch.zeros_like(scores).scatter_add_(1, input_ids, torch.ones(input_ids.shape))
            return scores - counts * torch.arange(1, len(scores) + 1)[:, None]

    class Crowded(transformers.StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            return input_ids[:, 2:].sum(1) > 600

    model, inputs = tiny(name), prompt(name, rows)
    flags: dict[str, Any] = {
        "do_sample": False, "max_new_tokens": 16, "logits_processor": [Sinking()], "stopping_criteria": [Crowded()],
        "eos_token_id": 3,
    }  # fmt: skip
    stock = model.generate(**inputs, **flags)
    assert torch.equal(genmode.generate(model, **inputs, **flags, **DRAFT), stock)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_recorded_scores_are_those_of_greedy_search(name: str) -> None:
    model, inputs = tiny(name), prompt(name, 3)
    flags: dict[str, Any] = {
        **BANS, "do_sample": False, "max_new_tokens": 12, "return_dict_in_generate": True, "output_scores": True,
        "output_logits": True,
    }  # fmt: skip
    stock = model.generate(**inputs, **flags)
    ours = genmode.generate(model, **inputs, **flags, **DRAFT)
    assert torch.equal(ours.sequences, stock.sequences)
    for kind in ("scores", "logits"):
        torch.testing.assert_close(torch.stack(ours[kind]), torch.stack(stock[kind]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.compute_transition_scores(ours.sequences, ours.scores),
        model.compute_transition_scores(stock.sequences, stock.scores),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("name", "flags"), [("llama", {}), ("llama", {"prefill_chunk_size": 64}), ("bart", {}), ("gpt2", {})], ids=str
)
def test_recorded_states_are_those_of_greedy_search(name: str, flags: dict[str, Any], rows: int) -> None:
    """Also where rows have taken different numbers of tokens; a sliding window's keys are kept, so not there."""
    model, inputs = tiny(name, "eager"), prompt(name, rows)
    recorded = {"return_dict_in_generate": True, "output_hidden_states": True, "output_attentions": True}
    call: dict[str, Any] = {**inputs, **recorded, "do_sample": False, "max_new_tokens": 10}
    stock = model.generate(**call)
    ours = genmode.generate(model, **call, **flags, **DRAFT)
    assert torch.equal(ours.sequences, stock.sequences)
    kinds = [key for key in stock if key.endswith(("hidden_states", "attentions")) and not key.startswith("encoder")]
    assert len(kinds) == (3 if name == "bart" else 2)
    for kind in kinds:
        assert len(ours[kind]) == len(stock[kind]) == 10
        for mine, theirs in zip(ours[kind], stock[kind], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_ways_of_caching() -> None:
    model, inputs = cyclic(), {"input_ids": torch.tensor([[50, 10, 11], [51, 20, 21]])}
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20}
    stock = model.generate(**inputs, **flags)
    for way in ({"use_cache": False}, {"past_key_values": transformers.DynamicCache()}, {"prefill_chunk_size": 2}):
        assert torch.equal(genmode.generate(model, **inputs, **flags, **DRAFT, **way), stock), way


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("name", ["llama", "gemma3", "bart"])
def test_the_tokens_of_sampling_under_a_seed(name: str, rows: int) -> None:
    model, inputs = tiny(name), prompt(name, rows)
    warped: dict[str, Any] = {
        "do_sample": True,
        "temperature": 0.4,
        "top_k": 12,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
    }
    flags = {**warped, "max_new_tokens": 20, "seed": 11, "eos_token_id": list(range(5, 95, 9))}
    plain = genmode.generate(model, **inputs, **flags)
    assert torch.equal(genmode.generate(model, **inputs, **flags, **DRAFT), plain)
    recorded = genmode.generate(model, **inputs, **flags, **DRAFT, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(recorded.sequences, plain)


@pytest.mark.parametrize("warp", [{"top_k": 0}, {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.5}], ids=str)
def test_the_distribution_of_sampling(warp: dict[str, Any]) -> None:
    """All texts of three tokens over a vocabulary of 5, against their probabilities under plain sampling.

    Wrong with probability 0.001 for a random seed; the seed is fixed.
    """
    rows, length, vocab = 4000, 3, 5
    model = fresh("llama", vocab_size=vocab, initializer_range=0.15, pad_token_id=0)
    start = torch.tensor([[1, 2, 3, 1, 2, 4, 1, 2]])

    texts = torch.cartesian_prod(*[torch.arange(vocab)] * length)  # [125, 3]
    whole = torch.cat([start.expand(len(texts), -1), texts], 1)
    with torch.no_grad():
        logits = model(whole).logits[:, start.shape[1] - 1 : -1].float()
    probabilities = torch.ones(len(texts))
    for position in range(length):
        scores = logits[:, position]
        if "temperature" in warp:
            before = whole[:, : start.shape[1] + position]
            seen = scores.gather(1, before)
            scores = scores.scatter(1, before, torch.where(seen < 0, seen * 1.5, seen / 1.5)) / 0.7
            scores = scores.masked_fill(scores < scores.topk(3).values[:, -1:], -math.inf)
        probabilities *= scores.softmax(-1).gather(1, texts[:, position, None])[:, 0]
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-4)

    numbers = torch.tensor([vocab**2, vocab, 1])
    for extra in ({}, {"prompt_lookup_num_tokens": 2}):
        torch.manual_seed(2)
        flags = {**warp, "do_sample": True, "max_new_tokens": length, **extra}
        drawn = genmode.generate(model, start.expand(rows, -1), attention_mask=torch.ones(rows, 8).long(), **flags)
        counts = ((drawn[:, -length:] * numbers).sum(1)).bincount(minlength=len(texts))
        assert chi_square(counts, rows * probabilities) > 0.001, extra


def test_what_a_wrong_sampler_would_do_to_the_test() -> None:
    """The test above can tell: it refuses probabilities that are off by a quarter."""
    probabilities = torch.full((100,), 0.01)
    wrong = probabilities * torch.tensor([0.75, 1.25] * 50)
    draws = torch.multinomial(wrong, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert chi_square(draws.bincount(minlength=100), 4000 * probabilities) < 0.001


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("mamba", "lfm2")])
def test_every_family_that_can_go_back(name: str) -> None:
    model, inputs = tiny(name), prompt(name, 2)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, **BANS}
    assert torch.equal(genmode.generate(model, **inputs, **flags, **DRAFT), model.generate(**inputs, **flags))


def test_streams_what_it_decodes() -> None:
    model, inputs = cyclic(), {"input_ids": torch.tensor([[50, 10, 11], [51, 20, 21], ids(1, 3)[0].tolist()])}
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20, **DRAFT}
    pieces = list(genmode.stream(model, **inputs, **flags))
    assert torch.equal(torch.stack(pieces, 1), genmode.generate(model, **inputs, **flags)[:, 3:])
    for eos in (13, [13, 24], [11, 20]):  # rows end at steps of their own, and some do not
        pieces = list(genmode.stream(model, **inputs, **flags, eos_token_id=eos))
        stock = model.generate(**inputs, do_sample=False, max_new_tokens=20, eos_token_id=eos)
        assert torch.equal(torch.stack(pieces, 1), stock[:, 3:]), eos
