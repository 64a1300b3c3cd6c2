"""`draft=` and `verify=`: names, objects and parameters, every pair in greedy search, transformers' draws, rows by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import fresh, near, prompt, tiny
from genmode_strategies.drafters.prompt_lookup import PromptLookupDrafter
from genmode_strategies.verifications.block import Block

from .assisted_support import MTP, dflash, flags_of, other_words, ours, theirs
from .drafting_support import BANS

VERIFICATIONS = ("coupling", "rejection", "block", "typical", "cascade")


def named(drafter: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """A model, and arguments that name a drafter and give it what it needs."""
    if drafter in ("mtp", "dflash") and not MTP:
        pytest.skip("this transformers has no such candidate generators")
    needs: dict[str, dict[str, Any]] = {
        "assistant": {"assistant_model": near("llama"), "num_assistant_tokens": 4},
        "assistant_text": {
            "assistant_model": other_words(), "tokenizer": ours(), "assistant_tokenizer": theirs(),
            "num_assistant_tokens": 3, "assistant_confidence_threshold": 0.1,
        },
        "early_exit": {"assistant_early_exit": 1, "num_assistant_tokens": 3},
        "prompt_lookup": {"prompt_lookup_num_tokens": 4}, "suffix": {"suffix_lookup_num_tokens": 4},
        "dflash": {"assistant_model": dflash() if MTP else None},
    }  # fmt: skip
    model = flags_of("mtp", monkeypatch)[0] if drafter == "mtp" else tiny("llama")
    return model, {"draft": drafter, **needs.get(drafter, {})}


DRAFTERS = ("assistant", "assistant_text", "early_exit", "prompt_lookup", "suffix", "mtp", "dflash")


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_greedy_search_is_the_same_beside_every_verification(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = named(drafter, monkeypatch)
    for rows in (1, 3):
        flags: dict[str, Any] = {**BANS, **prompt("llama", rows), "do_sample": False, "max_new_tokens": 14}
        plain = genmode.generate(model, **flags)
        for verification in (None, *VERIFICATIONS):
            assert torch.equal(genmode.generate(model, **flags, **drafts, verify=verification), plain), verification


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_coupling_gives_the_tokens_of_sampling_under_a_seed(drafter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = named(drafter, monkeypatch)
    flags: dict[str, Any] = {**prompt("llama", 3), "do_sample": True, "top_k": 9, "max_new_tokens": 14, "seed": 4}
    plain = genmode.generate(model, **flags)
    for verification in (None, "coupling"):
        assert torch.equal(genmode.generate(model, **flags, **drafts, verify=verification), plain)


@pytest.mark.parametrize("verification", VERIFICATIONS)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_every_pair_samples(drafter: str, verification: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the host learns late and drafts are filled up, with texts that end and forbidden tokens."""
    model, drafts = named(drafter, monkeypatch)
    flags: dict[str, Any] = {
        **prompt("llama", 3), "do_sample": True, "temperature": 0.8, "max_new_tokens": 14, "verify": verification,
        "eos_token_id": list(range(5, 95, 9)), "suppress_tokens": [7, 11, 50], **drafts,
    }  # fmt: skip
    for seed in (None, 3):
        torch.manual_seed(1)
        result = genmode.generate(model, **flags, seed=seed)
        with host_sync.late_host():
            genmode.generate(model, **flags, seed=seed)
        assert not torch.isin(result[:, 9:], torch.tensor([7, 11, 50])).any()
        for row in result[:, 9:].tolist():
            ends = [place for place, token in enumerate(row) if token in flags["eos_token_id"]]
            assert not ends or not any(row[ends[0] + 1 :])


# transformers' draws -----------------------------------------------------------------------------------

SOURCES: dict[str, Any] = {
    "assistant": lambda: {"assistant_model": near("llama")},
    "growing": lambda: {"assistant_model": growing()},
    "early_exit": lambda: {"assistant_early_exit": 1},
    "prompt_lookup": lambda: {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 2},
}


def growing() -> Any:
    helper = fresh("llama")
    helper.load_state_dict(near("llama").state_dict())
    helper.generation_config.update(
        num_assistant_tokens=2, num_assistant_tokens_schedule="heuristic_transient", assistant_confidence_threshold=0.02
    )
    return helper


@pytest.mark.parametrize(
    "more", [{}, {"temperature": 0.6, "top_k": 12, "repetition_penalty": 1.2}], ids=["plain", "more"]
)
@pytest.mark.parametrize("source", SOURCES)
def test_one_row_draws_what_transformers_draws(source: str, more: dict[str, Any]) -> None:
    """Token for token, and torch's generator ends in the same state; texts end by themselves or at the longest length."""
    model, flags = tiny("llama"), {"do_sample": True, "max_new_tokens": 24, "eos_token_id": [3, 50, 60], **more}
    given, differ = SOURCES[source](), 0
    if source == "prompt_lookup":  # see docs/differences.md
        flags.pop("repetition_penalty", None)
    for seed in range(12):
        inputs = {"input_ids": torch.tensor([[5, 6, 7, 5, 6, 8 + seed]])}
        torch.manual_seed(seed)
        stock, after = model.generate(**inputs, **flags, **given), torch.rand(1)
        torch.manual_seed(seed)
        mine = genmode.generate(model, **inputs, **flags, **given)
        assert torch.equal(mine, stock), seed
        assert torch.equal(torch.rand(1), after), seed
        torch.manual_seed(seed)
        differ += not torch.equal(genmode.generate(model, **inputs, **flags), stock)
    assert differ > 3  # the draws of sampling without drafts are others


def test_a_padding_token_that_was_decoded_is_none_to_transformers_assistant() -> None:
    """The assistant does not look at it, so what it draws is other than if it did."""
    model, given = tiny("llama"), {"assistant_model": near("llama"), "do_sample": True, "max_new_tokens": 16}
    seen = 0
    for seed in range(40):
        torch.manual_seed(seed)
        stock = model.generate(torch.tensor([[5, 6, 7]]), **given)
        torch.manual_seed(seed)
        assert torch.equal(genmode.generate(model, torch.tensor([[5, 6, 7]]), **given), stock)
        seen += int((stock[0, 3:-4] == 0).any())
    assert seen > 0


def test_states_that_are_returned_leave_the_prompt_without_a_draft() -> None:
    flags: dict[str, Any] = {
        "do_sample": True, "max_new_tokens": 8, "return_dict_in_generate": True, "output_hidden_states": True,
    }  # fmt: skip
    result = genmode.generate(tiny("llama"), torch.tensor([[5, 6, 7]]), **flags, assistant_model=near("llama"))
    assert [states[0].shape[1] for states in result.hidden_states] == [3, *[1] * (len(result.hidden_states) - 1)]


# Rows by themselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verification", ["rejection", "block", "typical", "cascade"])
@pytest.mark.parametrize("drafter", ["assistant", "early_exit", "prompt_lookup"])
def test_a_row_alone_is_the_row_in_a_batch(drafter: str, verification: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drafts = named(drafter, monkeypatch)
    tokens = torch.tensor([[5, 7, 3] * 3, [9, 9, 4] * 3, [5, 6, 8] * 3])
    flags: dict[str, Any] = {
        "do_sample": True, "max_new_tokens": 20, "verify": verification, "eos_token_id": [20, 40, 60], "top_k": 20,
        "pad_token_id": 0, **drafts,
    }  # fmt: skip
    together = genmode.generate(model, tokens, **flags, seed=[1, 2, 3])
    for row in range(3):
        alone = genmode.generate(model, tokens[row : row + 1], **flags, seed=[row + 1])[0]
        assert torch.equal(together[row, : len(alone)], alone)
        assert not together[row, len(alone) :].any()


def test_the_result_depends_on_the_draft_under_rejection_and_not_under_coupling() -> None:
    model, flags = tiny("llama"), {**prompt("llama", 2), "do_sample": True, "max_new_tokens": 20, "seed": 3}
    drafts: dict[str, Any] = {"assistant_model": near("llama"), "assistant_confidence_threshold": 0.0}

    def texts(verification: str) -> list[Tensor]:
        return [
            genmode.generate(model, **flags, **drafts, verify=verification, num_assistant_tokens=n) for n in (1, 2, 3)
        ]

    assert all(torch.equal(one, texts("coupling")[0]) for one in texts("coupling"))
    assert not all(torch.equal(one, texts("rejection")[0]) for one in texts("rejection"))


# Naming ------------------------------------------------------------------------------------------------


def test_names_classes_and_objects_mean_the_same() -> None:
    flags: dict[str, Any] = {**prompt("llama", 2), "do_sample": True, "max_new_tokens": 12, "seed": 3}
    found = [
        genmode.generate(tiny("llama"), **flags, draft=draft, verify=verify, **more)
        for draft, verify, more in (
            ("prompt_lookup", "block", {"prompt_lookup_num_tokens": 3}),
            (PromptLookupDrafter, Block, {"prompt_lookup_num_tokens": 3}),
            (PromptLookupDrafter(prompt_lookup_num_tokens=3), Block(), {}),
        )
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_explain_says_what_drafts_and_how_it_is_verified() -> None:
    model, inputs = tiny("llama"), prompt("llama", 1)
    helper: dict[str, Any] = {"assistant_model": near("llama")}
    for flags, drafter, verification in (
        ({**helper, "do_sample": True}, "assistant", "rejection()"),
        ({**helper, "do_sample": True, "seed": 1}, "assistant", "coupling()"),
        (helper, "assistant", "the most probable token"),
        ({"prompt_lookup_num_tokens": 3, "do_sample": True}, "prompt_lookup", "coupling()"),
        ({"draft": "suffix", "do_sample": True, "verify": "cascade", "cascade_alpha": 0.5}, "suffix",
         "cascade(cascade_alpha=0.5)"),
        ({"strategy": "suffix_lookup"}, "suffix", "the most probable token"),
        ({}, "", ""),
    ):  # fmt: skip
        plan = genmode.explain(model, **inputs, **flags, max_new_tokens=4)
        assert (plan.drafter.partition("(")[0], plan.verification) == (drafter, verification), flags
        assert ("drafter" in str(plan)) == bool(drafter)
    (note,) = genmode.explain(model, **inputs, draft="suffix", do_sample=True, verify="typical", max_new_tokens=4).notes
    assert "'typical' changes what text is distributed as" in note
    (note,) = genmode.explain(model, **inputs, draft="suffix", do_sample=False, verify="block", max_new_tokens=4).notes
    assert "nothing to decide" in note


def test_a_config_names_them() -> None:
    config = genmode.GenerationConfig(
        draft="prompt_lookup", verify="cascade", cascade_alpha=0.5, do_sample=True, prompt_lookup_num_tokens=2
    )
    again = genmode.GenerationConfig(**config.to_dict())
    plan = genmode.explain(tiny("llama"), **prompt("llama", 1), generation_config=again, max_new_tokens=4)
    assert plan.strategy == "assisted_generation"
    assert (plan.drafter, plan.verification) == (
        "prompt_lookup(prompt_lookup_num_tokens=2)", "cascade(cascade_alpha=0.5)",
    )  # fmt: skip
    with pytest.raises(genmode.ParameterError, match="the name of a drafter"):
        genmode.GenerationConfig(draft=PromptLookupDrafter())


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        ({"draft": "prompt_lookup", "strategy": "greedy_search"}, genmode.ParameterError, "'greedy_search' verifies none"),
        ({"verify": "block"}, genmode.ParameterError, "verify='block' is about drafts"),
        ({"draft": "no_such"}, genmode.UnknownComponentError, "no drafter is named 'no_such'"),
        ({"draft": "suffix", "verify": "blocks"}, genmode.UnknownComponentError, "did you mean 'block'"),
        ({"draft": 3}, genmode.ParameterError, "draft=3: give a name, a Drafter class or a Drafter object"),
        ({"draft": Block}, genmode.ParameterError, "draft='block': give a name"),
        ({"draft": "suffix", "verify": int}, genmode.ParameterError, "verify=<class 'int'>: give a name"),
        ({"draft": "assistant"}, genmode.ParameterError, "give it as assistant_model"),
        ({"draft": "mtp"}, genmode.UnsupportedError, "ships no heads"),
        ({"draft": "dflash"}, genmode.ParameterError, "nothing was given"),
        ({"draft": "suffix", "prompt_lookup_num_tokens": 2}, genmode.ParameterError, "leave one out"),
        ({"draft": "suffix", "num_beams": 2}, genmode.ParameterError, "num_beams"),
        ({"draft": "suffix", "cascade_alpha": 0.5}, genmode.ParameterError, "verification 'cascade'"),
        ({"draft": "suffix", "verify": "cascade", "cascade_alpha": 5.0}, genmode.ParameterError, "cascade_alpha=5.0"),
        ({"strategy": "prompt_lookup", "draft": "suffix"}, genmode.ParameterError, "leave strategy or draft out"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input(flags: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        genmode.generate(tiny("llama"), **prompt("llama", 1), **flags, max_new_tokens=4)
    assert words in str(caught.value), str(caught.value)


def test_a_drafter_given_as_an_object_lets_go_of_the_call() -> None:
    drafter = PromptLookupDrafter(prompt_lookup_num_tokens=3)
    before = {key for key, value in vars(drafter).items() if isinstance(value, Tensor)}
    genmode.generate(tiny("llama"), **prompt("llama", 1), draft=drafter, max_new_tokens=6)
    assert before == set()
    assert drafter.copied is drafter.found is drafter.replay is None
