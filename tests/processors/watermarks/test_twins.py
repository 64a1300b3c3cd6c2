"""KGW and SynthID-Text: the scores and tokens of transformers' own processors, bit by bit."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers
from transformers.generation import logits_process as theirs

import genmode
from genmode.testing.harness.models import prompt, tiny
from genmode_processors.watermarks.kgw import Kgw
from genmode_processors.watermarks.synthid import SynthId

from .marks_support import past

VOCAB = 300
CPU = torch.device("cpu")


def scores(seed: int, rows: int = 3) -> torch.Tensor:
    """With ties, and tokens that are masked."""
    drawn = torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    drawn = (drawn * 2).round() / 2
    drawn[:, 5] = -torch.inf
    drawn[0, 40:] = -torch.inf
    return drawn


@pytest.mark.oldest
@pytest.mark.parametrize(("scheme", "width"), [("lefthash", 1), ("lefthash", 3), ("selfhash", 1), ("selfhash", 4)])
@pytest.mark.parametrize(("ratio", "key"), [(0.25, 15485863), (0.29, 2**40 + 7), (0.5, 3)])
def test_kgw_equals_transformers(scheme: str, width: int, ratio: float, key: int) -> None:
    twin = theirs.WatermarkLogitsProcessor(VOCAB, "cpu", ratio, 1.7, key, scheme, width)
    mine = Kgw.adopt(twin)
    named = Kgw(key=key, greenlist_ratio=ratio, bias=1.7, seeding_scheme=scheme, context_width=width)
    generator = torch.Generator().manual_seed(0)
    for turn in range(4):
        ids = torch.randint(0, VOCAB, (3, 2 + turn), generator=generator)
        expected = twin(ids, scores(turn))
        for processor in (mine, named):
            assert processor is not None
            assert torch.equal(processor.process(scores(turn), past(ids, 1)), expected)


@pytest.mark.oldest
@pytest.mark.parametrize("size", [65536, 1000])
@pytest.mark.parametrize("skip", [False, True])
def test_synthid_equals_transformers(size: int, skip: bool) -> None:
    keys = [654, 400, 2**40 + 1, 123, 340]
    twin = theirs.SynthIDTextWatermarkLogitsProcessor(4, keys, size, 3, 6, CPU, skip_first_ngram_calls=skip)
    adopted = SynthId.adopt(twin)
    named = SynthId(
        keys=keys, ngram_len=4, sampling_table_size=size, sampling_table_seed=3, context_history_size=6,
        skip_first_ngram_calls=skip,
    )  # fmt: skip
    ids, generator = torch.randint(0, VOCAB, (3, 5)), torch.Generator().manual_seed(0)
    repeated = 0
    for step in range(40):  # tokens of two kinds, so that contexts repeat
        expected = twin(ids, scores(step))
        repeated += int(torch.equal(expected, scores(step)))
        for processor in (adopted, named):
            assert processor is not None
            assert torch.equal(processor.process(scores(step), past(ids, 5)), expected)
        ids = torch.cat([ids, torch.randint(0, 2, (3, 1), generator=generator)], 1)


def test_debug_mode_stays_transformers_own() -> None:
    twin = theirs.SynthIDTextWatermarkLogitsProcessor(4, [1], 16, 0, 6, CPU, debug_mode=True)
    assert SynthId.adopt(twin) is None


@pytest.mark.oldest
@pytest.mark.parametrize(
    "config",
    [
        transformers.WatermarkingConfig(bias=3.0, context_width=1),
        transformers.WatermarkingConfig(bias=3.0, seeding_scheme="selfhash", context_width=2),
        transformers.SynthIDTextWatermarkingConfig(ngram_len=3, keys=[5, 9, 11]),
    ],
    ids=["lefthash", "selfhash", "synthid"],
)
def test_calls_with_transformers_configurations_give_its_tokens(config: Any) -> None:
    model = tiny("llama")
    inputs = prompt("llama", 3)
    flags = {"do_sample": True, "top_k": 30, "max_new_tokens": 12, "watermarking_config": config}
    results = []
    for generate in (type(model).generate, genmode.generate):
        torch.manual_seed(3)
        results.append(generate(model, **inputs, **flags))
    assert torch.equal(*results)
    plan = genmode.explain(model, **inputs, **flags)
    assert {"kgw", "synthid"} & {part.name for part in plan.processors}
    assert "15485863" not in str(plan)


def test_the_detector_counts_what_transformers_counts() -> None:
    model = tiny("llama")
    config = transformers.WatermarkingConfig(bias=4.0)
    ids = torch.randint(2, 100, (4, 60), generator=torch.Generator().manual_seed(1))
    twin = transformers.WatermarkDetector(model.config, "cpu", config, ignore_repeated_ngrams=True)
    expected = twin(ids, return_dict=True)
    found = genmode.detect(ids, config, model=model)
    assert [one.tokens for one in found] == expected.num_tokens_scored.tolist()
    assert [one.score for one in found] == pytest.approx(expected.z_score.tolist())


def test_a_wider_left_context_is_counted_by_what_is_hashed() -> None:
    # lefthash reads the last token alone, whatever the width: one pair of tokens is one draw
    ids = torch.tensor([[7, 8, 9, 8, 9, 8, 9]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = genmode.detect(ids, Kgw(key=3, vocab_size=100, context_width=3))
    assert found[0].tokens == 3  # (7, 8), (8, 9), (9, 8)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_synthid_draws_its_table_where_it_is_told(device: str) -> None:
    stock = theirs.SynthIDTextWatermarkLogitsProcessor(4, [3, 5], 64, 3, 6, torch.device(device))
    own = SynthId(keys=(3, 5), sampling_table_size=64, sampling_table_seed=3, generator_device=device)
    adopted = SynthId.adopt(stock)
    assert isinstance(adopted, SynthId)
    for made in (own, adopted):
        assert torch.equal(made.table(torch.device("cpu")), stock.sampling_table.cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("scheme", ["lefthash", "selfhash"])
def test_kgw_marks_on_a_device_as_on_the_cpu_if_told_so(scheme: str) -> None:
    mark = Kgw(key=5, seeding_scheme=scheme, context_width=3, vocab_size=VOCAB, generator_device="cpu")
    ids = torch.randint(0, VOCAB, (3, 9), generator=torch.Generator().manual_seed(0))
    given = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))  # a sort orders ties as its device does
    there = mark.process(given.cuda(), past(ids.cuda(), 1))
    assert torch.equal(there.cpu(), mark.process(given, past(ids, 1)))
