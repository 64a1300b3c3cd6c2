"""Assisted generation: the tokens of greedy search and sampling, beside other parts, and bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import ENCODER_DECODER, PAD, fresh, ids, near, prompt, tiny

from .assisted_support import DRAFTERS, MTP, dflash, flags_of, other_words, ours, widths
from .drafting_support import BANS, change_nothing, forwards

# The same tokens ---------------------------------------------------------------------------------------


@pytest.mark.oldest
@pytest.mark.parametrize("bans", [{}, BANS], ids=["free", "banned"])
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_tokens_of_greedy_search(
    drafter: str, rows: int, bans: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    change_nothing(drafts, model, prompt("llama", rows), bans)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma3", "t5", "bart", "llava"])
def test_families(name: str) -> None:
    for rows, length in ((1, 24), (3, 24), (3, 64)):  # 64 is all the positions that GPT-2 and BART have
        model, inputs = tiny(name), prompt(name, rows)
        flags: dict[str, Any] = {"do_sample": False, "max_length": length, "eos_token_id": 3, **BANS}
        stock = model.generate(**inputs, **flags)
        for drafts in ({"assistant_model": near(name)}, {"assistant_early_exit": 1}, {"prompt_lookup_num_tokens": 5}):
            if name not in ENCODER_DECODER or "assistant_early_exit" not in drafts:
                result = genmode.generate(model, **inputs, **flags, **drafts, num_assistant_tokens=5)
                assert torch.equal(result, stock), (rows, length, list(drafts))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_tokens_of_sampling_under_a_seed(drafter: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    flags: dict[str, Any] = {
        **BANS, "do_sample": True, "temperature": 0.6, "top_k": 12, "top_p": 0.9, "max_new_tokens": 16, "seed": 5,
        "eos_token_id": list(range(5, 95, 9)),
    }  # fmt: skip
    plain = genmode.generate(model, **prompt("llama", rows), **flags)
    assert torch.equal(genmode.generate(model, **prompt("llama", rows), **flags, **drafts), plain)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_several_results_of_each_input(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    flags = {"do_sample": True, "max_new_tokens": 12, "num_return_sequences": 3, "seed": 5}
    plain = genmode.generate(model, **prompt("llama", 2), **flags)
    assert torch.equal(genmode.generate(model, **prompt("llama", 2), **flags, **drafts), plain)
    assert len({tuple(row) for row in plain.tolist()}) == 6
    torch.manual_seed(0)
    free = genmode.generate(model, **prompt("llama", 2), **{**flags, "seed": None}, **drafts)
    assert len({tuple(row) for row in free.tolist()}) == 6


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_stock_assisted_generation(name: str) -> None:
    """The tokens of transformers' own, and not one forward more than it takes, but for the prompt's."""
    model, inputs = tiny(name), prompt(name, 1)
    for bans in ({}, BANS):
        for sizes in ({"num_assistant_tokens": 3}, {"num_assistant_tokens_schedule": "heuristic_transient"}):
            flags: dict[str, Any] = {**bans, "do_sample": False, "max_new_tokens": 24}
            helper = fresh(name)
            helper.load_state_dict(near(name).state_dict())
            helper.generation_config.update(**sizes)
            stock, theirs = forwards(model, lambda: model.generate(**inputs, **flags, assistant_model=helper))  # noqa: B023
            ours, mine = forwards(model, lambda: genmode.generate(model, **inputs, **flags, assistant_model=helper))  # noqa: B023
            assert torch.equal(ours, stock)
            assert mine <= theirs + 1, (bans, sizes)


@pytest.mark.parametrize("drafter", ["early_exit", "other_words", "mtp", "dflash"])
def test_stock_drafters(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    inputs, flags = prompt("llama", 1), {"do_sample": False, "max_new_tokens": 20}
    stock, theirs = forwards(model, lambda: model.generate(**inputs, **flags, **drafts))
    ours, mine = forwards(model, lambda: genmode.generate(model, **inputs, **flags, **drafts))
    assert torch.equal(ours, stock)
    assert drafter == "other_words" or mine <= theirs + 1


# Life with other parts ---------------------------------------------------------------------------------


def test_a_processor_with_a_model_of_its_own() -> None:
    """A side model that a processor asks for is right at every drafted position."""

    class Expert(genmode.LogitsProcessor):
        contract_version = 1

        def begin(self, context: genmode.Context) -> None:
            self.side = context.side_model(ids(context.rows, 5, seed=8))

        def process(self, scores: Tensor, history: genmode.History) -> Tensor:
            return scores + 0.5 * self.side.logits()

    for rows in (1, 3):
        flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 14, "processors": [Expert]}
        plain = genmode.generate(tiny("llama"), **prompt("llama", rows), **flags)
        for drafts in ({"assistant_model": near("llama"), "num_assistant_tokens": 3}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(genmode.generate(tiny("llama"), **prompt("llama", rows), **flags, **drafts), plain)


def test_recorded_scores_are_those_of_greedy_search() -> None:
    model, inputs = tiny("llama"), prompt("llama", 3)
    flags: dict[str, Any] = {
        **BANS, "do_sample": False, "max_new_tokens": 12, "return_dict_in_generate": True, "output_scores": True,
        "output_logits": True,
    }  # fmt: skip
    stock = model.generate(**inputs, **flags)
    ours = genmode.generate(model, **inputs, **flags, assistant_model=near("llama"), num_assistant_tokens=4)
    assert torch.equal(ours.sequences, stock.sequences)
    for kind in ("scores", "logits"):
        torch.testing.assert_close(torch.stack(ours[kind]), torch.stack(stock[kind]), atol=1e-4, rtol=1e-4)


def test_an_assistant_is_left_as_it_was() -> None:
    helper = fresh("llama")
    before, config = dict(vars(helper.generation_config)), helper.config.to_dict()
    for flags in ({"do_sample": False}, {"do_sample": True, "num_assistant_tokens_schedule": "heuristic"}):
        genmode.generate(tiny("llama"), **prompt("llama", 2), **flags, max_new_tokens=8, assistant_model=helper)
    assert (vars(helper.generation_config), helper.config.to_dict()) == (before, config)


def test_the_heuristic_goes_on_where_the_last_call_ended() -> None:
    model, helper = tiny("llama"), fresh("llama")
    flags: dict[str, Any] = {
        "do_sample": False, "max_new_tokens": 60, "assistant_model": helper, "assistant_confidence_threshold": 0.0,
    }  # fmt: skip
    inputs = prompt("llama", 1)
    for schedule, second in (("heuristic_transient", 4), ("heuristic", 4), ("heuristic", 10)):
        helper.generation_config.update(num_assistant_tokens=3, num_assistant_tokens_schedule=schedule)
        _, taken = widths(model, lambda: genmode.generate(model, **inputs, **flags))
        assert taken[0] == second if second == 4 else taken[0] > 4


@pytest.mark.parametrize("sampling", [{"do_sample": False}, {"do_sample": True, "top_k": 12, "seed": 3}], ids=str)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_host_that_learns_late(drafter: str, sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = flags_of(drafter, monkeypatch)
    flags: dict[str, Any] = {**BANS, **sampling, "max_new_tokens": 40}
    for rows in (1, 3):
        with host_sync.late_host():
            plain = genmode.generate(model, **prompt("llama", rows), **flags)
            eos = int(plain[0, -20])
            plain = genmode.generate(model, **prompt("llama", rows), **flags, eos_token_id=eos)
            drafted = genmode.generate(model, **prompt("llama", rows), **flags, **drafts, eos_token_id=eos)
        assert torch.equal(drafted, plain)


@pytest.mark.gpu
@pytest.mark.parametrize("drafter", [one for one in DRAFTERS if one != "mtp"])
def test_on_a_device(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured forwards, and a host that learns everything one step late."""
    model, drafts = flags_of(drafter, monkeypatch)
    model = copy.deepcopy(model).cuda()
    drafts = {k: copy.deepcopy(v).cuda() if isinstance(v, torch.nn.Module) else v for k, v in drafts.items()}
    for rows in (1, 3, 8):
        inputs = {key: value.cuda() for key, value in prompt("llama", rows).items()}
        for sampling in ({"do_sample": False}, {"do_sample": True, "top_k": 12, "seed": 3}):
            flags: dict[str, Any] = {**BANS, **sampling, "max_new_tokens": 40}
            plain = genmode.generate(model, **inputs, **flags)
            eos = int(plain[0, -20])
            plain = genmode.generate(model, **inputs, **flags, eos_token_id=eos)
            assert torch.equal(genmode.generate(model, **inputs, **flags, **drafts, eos_token_id=eos), plain)


# Bad input ---------------------------------------------------------------------------------------------


def refused(kind: type[Exception], *words: str, model: Any = None, **flags: Any) -> None:
    model = tiny("llama") if model is None else model

    def call() -> None:
        with pytest.raises(kind) as caught:
            genmode.generate(model, **flags, max_new_tokens=4)
        assert all(word in str(caught.value) for word in words), str(caught.value)

    _, ran = forwards(model, call)
    assert ran == 0


def test_bad_input() -> None:
    inputs, other, error = prompt("llama", 2), other_words(), genmode.ParameterError
    refused(error, "assistant_model", "tokenizer and assistant_tokenizer", **inputs, assistant_model=other)
    refused(error, "assistant_tokenizer", **inputs, assistant_model=other, tokenizer=ours())
    refused(error, "assistant_model", **inputs, assistant_tokenizer=ours(), prompt_lookup_num_tokens=3,
            strategy="assisted_generation")  # fmt: skip
    refused(error, "assistant_model", "prompt_lookup_num_tokens", **inputs, assistant_model=near("llama"),
            prompt_lookup_num_tokens=3)  # fmt: skip
    refused(error, "assistant_early_exit", "prompt_lookup_num_tokens", **inputs, assistant_early_exit=1,
            prompt_lookup_num_tokens=3)  # fmt: skip
    refused(error, "assistant_model", "assistant_early_exit", **inputs, strategy="assisted_generation")
    refused(error, "assistant_model", "num_beams", **inputs, assistant_model=near("llama"), num_beams=2)
    refused(error, "prompt_lookup_num_tokens", "num_beams", **inputs, prompt_lookup_num_tokens=2, num_beams=2)
    refused(error, "suffix_lookup_num_tokens", "suffix_lookup", **inputs, suffix_lookup_num_tokens=5)
    refused(error, "assistant_early_exit=2", "1", **inputs, assistant_early_exit=2)
    refused(error, "assistant_early_exit", **inputs, assistant_early_exit=0)
    refused(error, "num_assistant_tokens", **inputs, assistant_model=near("llama"), num_assistant_tokens=0)
    refused(error, "num_assistant_tokens_schedule", **inputs, assistant_model=near("llama"),
            num_assistant_tokens_schedule="sometimes")  # fmt: skip
    refused(error, "assistant_model", "encoder-decoder", **inputs, assistant_model=tiny("t5"))
    t5, llama = {"model": tiny("t5"), **prompt("t5", 1)}, tiny("llama")
    refused(error, "assistant_model", "decoder-only", **t5, assistant_model=llama)
    if MTP:
        refused(error, "assistant_ensemble_weight", **inputs, assistant_model=llama, assistant_ensemble_weight=0.5)
        refused(genmode.UnsupportedError, "use_mtp", **inputs, use_mtp=True)
        refused(error, "speculation_type", **inputs, assistant_model=dflash())
        refused(error, "speculation_type", **inputs, assistant_model=near("llama"), speculation_type="dflash")


def test_models_that_cannot_go_back() -> None:
    error, mamba, t5 = genmode.UnsupportedError, tiny("mamba"), {"model": tiny("t5"), **prompt("t5", 1)}
    refused(error, "cannot go back", model=mamba, **prompt("mamba", 1), assistant_model=near("llama"))
    refused(error, "cannot go back", **prompt("llama", 1), assistant_model=mamba)
    refused(error, "assistant_early_exit", **t5, assistant_early_exit=1)


def test_padding_is_no_part_of_what_a_draft_model_reads() -> None:
    """A row's forwards do not depend on the padding that another row's length brings."""
    model = tiny("llama")
    tokens = ids(1, 6)
    padded = torch.cat([torch.full((1, 4), PAD), tokens], 1)
    flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "assistant_model": near("llama")}
    taken = [
        widths(model, lambda: genmode.generate(model, row, attention_mask=(row != PAD).long(), **flags))[1]  # noqa: B023
        for row in (tokens, padded)
    ]
    assert taken[0] == taken[1]
