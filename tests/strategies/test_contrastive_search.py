"""Contrastive search: likeness by hand, transformers 4.49's tokens, and what must not change them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import prompt, tiny
from genmode_strategies.contrastive_search import ContextStates, unit

from .goldens import cases

MODE = "contrastive_search"
FLAGS: dict[str, Any] = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 12}


def context(states: list[list[list[float]]], starts: list[int]) -> ContextStates:
    """A context of these hidden states `[rows, length, size]`."""
    hidden = torch.tensor(states)
    session: Any = SimpleNamespace(
        prompt_length=hidden.shape[1],
        device=hidden.device,
        history=SimpleNamespace(starts=torch.tensor(starts)),
    )
    step: Any = SimpleNamespace(outputs={"hidden_states": (hidden,)})
    return ContextStates(session, step)


class TestContext:
    def test_the_largest_cosine(self) -> None:
        text = context([[[1.0, 0.0], [0.0, 2.0]]], [0])
        candidates = unit(torch.tensor([[[5.0, 0.0], [3.0, 4.0], [-1.0, 0.0]]]))
        torch.testing.assert_close(text.likeness(candidates), torch.tensor([[1.0, 0.8, 0.0]]))

    def test_padding_is_no_text(self) -> None:
        text = context([[[1.0, 0.0], [0.0, 1.0]]] * 2, [0, 1])
        like = text.likeness(unit(torch.tensor([[[1.0, 0.0]]] * 2)))
        torch.testing.assert_close(like, torch.tensor([[1.0], [0.0]]))

    def test_it_grows(self) -> None:
        text = context([[[1.0, 0.0]]], [0])
        for number in range(5):
            text.add(unit(torch.tensor([[[number + 1.0, 1.0]]])))
        assert text.length == 6
        torch.testing.assert_close(text.likeness(unit(torch.tensor([[[3.0, 1.0]]]))), torch.tensor([[1.0]]))


@pytest.mark.oldest
@pytest.mark.parametrize(("name", "key"), cases.LINES)
def test_the_tokens_of_transformers_4(name: str, key: str) -> None:
    for case in cases.cases(MODE, name, key):
        result = cases.decode(MODE, case)
        cases.compare(result, case)
        cases.compare_scores(result, case)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_low_memory_changes_nothing(name: str) -> None:
    inputs = prompt(name, 3)
    usual = genmode.generate(tiny(name), **inputs, **FLAGS)
    assert torch.equal(usual, genmode.generate(tiny(name), **inputs, **FLAGS, low_memory=True))


@pytest.mark.parametrize("flags", [{"penalty_alpha": 0.0}, {"top_k": 1}])
def test_without_penalty_or_choice_it_is_greedy_search(flags: dict[str, Any]) -> None:
    inputs = prompt("llama", 3)
    ours = genmode.generate(tiny("llama"), **inputs, **{**FLAGS, **flags}, strategy=MODE)
    greedy = genmode.generate(tiny("llama"), **inputs, max_new_tokens=12, do_sample=False)
    assert torch.equal(ours, greedy)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_row_alone_is_a_row_in_a_batch(name: str) -> None:
    inputs = prompt(name, 3)
    together = genmode.generate(tiny(name), **inputs, **FLAGS)
    for row in range(3):
        alone = {key: value[row : row + 1] for key, value in inputs.items()}
        assert torch.equal(genmode.generate(tiny(name), **alone, **FLAGS)[0], together[row])


def test_every_output_flag() -> None:
    model, inputs = tiny("llama"), prompt("llama", 2)
    result = genmode.generate(
        model, **inputs, **FLAGS, return_dict_in_generate=True, output_scores=True, output_logits=True,
        output_hidden_states=True,
    )  # fmt: skip
    length = inputs["input_ids"].shape[1]
    assert len(result.scores) == len(result.logits) == len(result.hidden_states) == 12
    assert result.hidden_states[0][-1].shape[:2] == (2, length)
    assert all(states[-1].shape[:2] == (2, 1) for states in result.hidden_states[1:])
    plain = model(**tidy(result.sequences, inputs), output_hidden_states=True)
    for step in range(1, 12):  # the states are those of the tokens that were chosen
        expected = plain.hidden_states[-1][:, length + step - 1]
        torch.testing.assert_close(result.hidden_states[step][-1][:, 0], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(result.logits[step], plain.logits[:, length + step - 1], atol=1e-4, rtol=1e-4)
    transitions = model.compute_transition_scores(result.sequences, result.scores, normalize_logits=True)
    assert transitions.shape == (2, 12)
    assert bool((transitions <= 0).all())


def tidy(sequences: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inputs of one forward over finished sequences."""
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(sequences[:, inputs["input_ids"].shape[1] :])], 1)
    return {
        "input_ids": sequences,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }


def test_it_streams() -> None:
    inputs = prompt("llama", 1)
    pieces = [int(piece) for piece in genmode.stream(tiny("llama"), **inputs, **FLAGS)]
    assert pieces == genmode.generate(tiny("llama"), **inputs, **FLAGS)[0, inputs["input_ids"].shape[1] :].tolist()


class TestBadInput:
    @pytest.mark.parametrize(("flag", "value"), [("penalty_alpha", 1.5), ("penalty_alpha", -0.1), ("top_k", 0)])
    def test_out_of_bounds(self, flag: str, value: float) -> None:
        with pytest.raises(genmode.ParameterError, match=flag):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **{**FLAGS, flag: value}, strategy=MODE)

    def test_sampling_contradicts_it(self) -> None:
        with pytest.raises(genmode.ParameterError, match="do_sample"):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **FLAGS, do_sample=True, strategy=MODE)

    def test_a_model_that_cannot_go_back(self) -> None:
        with pytest.raises(genmode.UnsupportedError):
            genmode.generate(tiny("mamba"), **prompt("mamba", 1), **FLAGS)

    def test_a_prompt_in_chunks(self) -> None:
        with pytest.raises(genmode.UnsupportedError, match="prefill_chunk_size"):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **FLAGS, prefill_chunk_size=2)


def test_a_call_without_a_cache() -> None:
    call: dict[str, Any] = {**prompt("llama", 2), "penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 8}
    plain = genmode.generate(tiny("llama"), **call)
    assert torch.equal(genmode.generate(tiny("llama"), **call, use_cache=False), plain)


def test_what_is_recorded_of_candidates_that_run_one_by_one() -> None:
    call: dict[str, Any] = {
        **prompt("llama", 2),
        **FLAGS,
        "output_hidden_states": True,
        "return_dict_in_generate": True,
    }
    usual, apart = (genmode.generate(tiny("llama"), **call, low_memory=low) for low in (False, True))
    assert torch.equal(usual.sequences, apart.sequences)
    torch.testing.assert_close(usual.hidden_states[1:], apart.hidden_states[1:])
