"""DoLa: layers and contrast by hand, and transformers 4.49's tokens."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import fresh, prompt, tiny
from genmode_strategies.dola_generation import candidate_layers, contrast, divergence

from .goldens import cases

MODE = "dola_generation"
FLAGS: dict[str, Any] = {"dola_layers": [0], "repetition_penalty": 1.2, "max_new_tokens": 10}


class TestLayers:
    @pytest.mark.parametrize(
        ("chosen", "count", "tied", "layers"),
        [
            ("low", 8, False, [0, 2]),
            ("low", 8, True, [2]),
            ("low", 4, True, [2]),
            ("low", 48, True, list(range(2, 20, 2))),
            ("high", 8, False, [4, 6]),
            ("high", 7, True, [3, 5]),
            ("high", 48, False, list(range(28, 48, 2))),
            ([1, 3, 9], 8, False, [1, 3]),
            ("low", 2, True, [1]),
            ("low", 1, True, [0]),
        ],
    )
    def test_by_hand(self, chosen: Any, count: int, tied: bool, layers: list[int]) -> None:
        assert candidate_layers(chosen, count, tied) == layers

    @pytest.mark.parametrize(("chosen", "count", "tied"), [("low", 3, True), ([8], 8, False)])
    def test_none_is_left(self, chosen: Any, count: int, tied: bool) -> None:
        with pytest.raises(genmode.ParameterError, match="dola_layers"):
            candidate_layers(chosen, count, tied)


class TestContrast:
    def test_equal_layers_leave_nothing(self) -> None:
        logits = torch.tensor([[1.0, 1.0, 1.0]])
        torch.testing.assert_close(contrast(logits.log_softmax(-1), logits[None]), torch.zeros(1, 3))

    def test_by_hand(self) -> None:
        final, early = torch.tensor([[0.5, 0.49, 0.01]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
        scores = contrast(final.log_softmax(-1), early[None])
        torch.testing.assert_close(scores[0, :2], torch.tensor([math.log(2.0), math.log(0.98)]))
        assert scores[0, 2] == -math.inf  # less than a tenth of the most probable one

    def test_divergence_by_hand(self) -> None:
        p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
        middle = (0.7, 0.3)
        kl = [sum(m * math.log(m / x) for m, x in zip(middle, xs, strict=True)) for xs in ((0.5, 0.5), (0.9, 0.1))]
        expected = 0.5 * sum(kl) / 2  # averaged over two tokens
        torch.testing.assert_close(
            divergence(p.log(), q.log()), torch.tensor([[expected], [0.0]]), atol=1e-7, rtol=1e-6
        )

    def test_the_most_different_layer_is_taken(self) -> None:
        final = torch.tensor([[0.6, 0.4]]).log()
        layers = torch.tensor([[[0.55, 0.45]], [[0.1, 0.9]], [[0.6, 0.4]]]).log()
        torch.testing.assert_close(
            contrast(final.log_softmax(-1), layers), contrast(final.log_softmax(-1), layers[1:2])
        )


@pytest.mark.oldest
@pytest.mark.filterwarnings("ignore:dola_layers is used with repetition_penalty")
@pytest.mark.parametrize(("name", "key"), [line for line in cases.LINES if line[0] not in ("t5", "bart")])
def test_the_tokens_of_transformers_4(name: str, key: str) -> None:
    for case in cases.cases(MODE, name, key):
        result = cases.decode(MODE, case)
        cases.compare(result, case)
        cases.compare_scores(result, case, edges=1)


def test_it_samples_what_it_scores() -> None:
    inputs = prompt("llama", 3)
    torch.manual_seed(2)
    result = genmode.generate(
        tiny("llama"), **inputs, **FLAGS, do_sample=True, return_dict_in_generate=True, output_scores=True
    )
    start = inputs["input_ids"].shape[1]
    for step, scores in enumerate(result.scores):
        assert scores.gather(1, result.sequences[:, start + step, None]).isfinite().all()


def test_hidden_states_are_recorded_only_if_asked_for() -> None:
    inputs = prompt("llama", 2)
    usual = genmode.generate(tiny("llama"), **inputs, **FLAGS, return_dict_in_generate=True, output_logits=True)
    assert usual.hidden_states is None
    asked = genmode.generate(tiny("llama"), **inputs, **FLAGS, return_dict_in_generate=True, output_hidden_states=True)
    assert len(asked.hidden_states) == 10
    assert torch.equal(usual.sequences, asked.sequences)
    stock = tiny("llama")(**inputs)  # logits are the model's own, not the contrast
    assert usual.logits[0].shape == stock.logits[:, -1].shape


def test_it_streams() -> None:
    inputs = prompt("llama", 1)
    pieces = [int(piece) for piece in genmode.stream(tiny("llama"), **inputs, **FLAGS)]
    assert pieces == genmode.generate(tiny("llama"), **inputs, **FLAGS)[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.filterwarnings("ignore:dola_layers is used with:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hidden_states_of_another_dtype_than_the_head(dtype: torch.dtype) -> None:
    model = fresh("mamba").to(dtype)
    with torch.no_grad():
        state = model(**prompt("mamba", 1), output_hidden_states=True).hidden_states[0]
    assert state.dtype != dtype  # else this shows nothing
    early = model.get_output_embeddings()(state[:, -1].to(dtype))
    logits = model(**prompt("mamba", 1)).logits[:, -1].float()
    expected = contrast(logits.log_softmax(-1), early[None]).argmax(-1)
    found = genmode.generate(model, **prompt("mamba", 1), dola_layers=[0], max_new_tokens=1)
    assert found[:, -1].tolist() == expected.tolist()


class TestBadInput:
    @pytest.mark.parametrize("layers", [[], [-1], "middle", [7]])
    def test_layers(self, layers: Any) -> None:
        with pytest.raises(genmode.ParameterError, match="dola_layers"):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **{**FLAGS, "dola_layers": layers})

    def test_an_encoder_decoder_model(self) -> None:
        with pytest.raises(genmode.UnsupportedError, match="encoder-decoder"):
            genmode.generate(tiny("t5"), **prompt("t5", 1), **FLAGS)

    def test_a_model_without_a_head(self) -> None:
        model = fresh("llama")
        model.get_output_embeddings = lambda: None
        with pytest.raises(genmode.UnsupportedError, match="output embeddings"):
            genmode.generate(model, **prompt("llama", 1), **FLAGS)

    @pytest.mark.parametrize("more", [(), (3,)], ids=["of another size", "of several parts"])
    def test_layers_that_do_not_fit_the_head(self, more: tuple[int, ...]) -> None:
        """As Electra's, whose head reads something smaller, and Gemma 3n's, which has several states a token."""
        model = fresh("llama")
        plain = model.forward

        def other(**given: Any) -> Any:
            output = plain(**given)
            output.hidden_states = tuple(one.new_zeros(*one.shape[:2], *more, 16) for one in output.hidden_states)
            return output

        model.forward = other
        with pytest.raises(genmode.UnsupportedError, match="takes 32 numbers a token; layers of LlamaForCausalLM have"):
            genmode.generate(model, **prompt("llama", 1), **FLAGS)

    def test_a_model_that_returns_fewer_layers_than_it_says(self) -> None:
        model = fresh("llama")
        plain = model.forward

        def fewer(**given: Any) -> Any:
            output = plain(**given)
            output.hidden_states = output.hidden_states[:1]
            return output

        model.forward = fewer
        with pytest.raises(
            genmode.UnsupportedError, match="contrasts layer 1, and LlamaForCausalLM returns hidden states"
        ):
            genmode.generate(model, **prompt("llama", 1), **{**FLAGS, "dola_layers": [1]})

    def test_a_config_that_says_nothing_of_tied_embeddings_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = fresh("llama")
        wanted = genmode.generate(model, **prompt("llama", 1), **FLAGS)
        silent = SimpleNamespace(num_hidden_layers=2)  # as Inkling's
        monkeypatch.setattr(
            type(model.config), "get_text_config", lambda self, **kwargs: silent if not kwargs else self
        )
        assert torch.equal(genmode.generate(model, **prompt("llama", 1), **FLAGS), wanted)

    def test_beams_contradict_it(self) -> None:
        with pytest.raises(genmode.ParameterError, match="num_beams"):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **FLAGS, num_beams=2)

    @pytest.mark.parametrize(("penalty", "advised"), [(None, 1), (1.0, 1), (1.1, 1), (1.19, 1), (1.2, 0), (1.5, 0)])
    def test_a_low_repetition_penalty_is_advised_against_and_a_high_one_is_not(
        self, penalty: float | None, advised: int
    ) -> None:
        flags = {**FLAGS, "repetition_penalty": penalty, "max_new_tokens": 1}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            genmode.generate(tiny("llama"), **prompt("llama", 1), **flags)
        assert [one.category for one in told] == [UserWarning] * advised
        assert all("a repetition_penalty of 1.2 or more is advised" in str(one.message) for one in told)
