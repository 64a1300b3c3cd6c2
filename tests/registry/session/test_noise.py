"""`seed=`: a row's result is the same alone, in any batch and in any order."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.session.noise import SeededNoise, TorchNoise, row_seeds
from genmode.testing.harness.models import PAD, prompt, tiny

MODES: dict[str, dict[str, Any]] = {
    "sample": {"do_sample": True, "temperature": 1.2, "top_p": 0.9},
    "sample without warpers": {"do_sample": True, "top_k": 0},
    "beam_sample": {"do_sample": True, "num_beams": 3, "temperature": 1.5},
    "prompt_lookup": {"do_sample": True, "prompt_lookup_num_tokens": 3, "top_k": 5},
    "two of each": {"do_sample": True, "num_return_sequences": 2},
}
EOS = list(range(5, 95, 7))


def text(row: Tensor) -> list[int]:
    """The decoded tokens up to the end of sequence."""
    tokens = row.tolist()
    ends = [place for place, token in enumerate(tokens) if token in EOS]
    return tokens[: ends[0] + 1] if ends else tokens


def decode(name: str, rows: list[int], seed: int | list[int], **flags: Any) -> list[list[list[int]]]:
    """The texts of some of eight prompts, in the order asked for; as many for each as there are results."""
    inputs = {key: value[rows] for key, value in batch(name).items()}
    result = genmode.generate(tiny(name), **inputs, seed=seed, max_new_tokens=10, eos_token_id=EOS, **flags)
    decoded = result[:, (1 if name == "bart" else 9) :]
    texts = [text(row) for row in decoded]
    copies = len(texts) // len(rows)
    return [texts[place * copies : (place + 1) * copies] for place in range(len(rows))]


def batch(name: str) -> dict[str, Tensor]:
    """Eight prompts of different lengths."""
    inputs = prompt(name, 8)
    for row in range(3, 8):
        hidden = slice(9 - row // 2, None) if name == "bart" else slice(None, row // 2)
        inputs["input_ids"][row, hidden], inputs["attention_mask"][row, hidden] = PAD, 0
    return inputs


@pytest.mark.oldest
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["llama", "gpt2", "bart"])
def test_alone_in_a_batch_and_in_any_order(name: str, mode: str) -> None:
    flags = MODES[mode]
    together = decode(name, list(range(8)), 5, **flags)
    # Rows draw the same numbers; the models but BART make different things of them.
    assert len({str(texts) for texts in together}) > (4 if name != "bart" else 0)
    assert [decode(name, [row], 5, **flags)[0] for row in range(8)] == together
    order = [3, 0, 7, 7, 5, 1]
    assert decode(name, order, 5, **flags) == [together[row] for row in order]


@pytest.mark.parametrize("mode", ["sample", "prompt_lookup", "beam_sample"])
def test_one_seed_for_each_row(mode: str) -> None:
    flags = MODES[mode]
    seeds = [9, 2, 9, 4, 1, 0, 2**61, -3]
    together = decode("llama", list(range(8)), seeds, **flags)
    assert [decode("llama", [row], seeds[row], **flags)[0] for row in range(8)] == together
    assert decode("llama", [4, 2], [1, 9], **flags) == [together[4], together[2]]


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(0, 2**63 - 1), st.sampled_from(["llama", "qwen2"])
)
@settings(max_examples=20)
def test_rows_and_seeds_in_any_combination(rows: list[int], seed: int, name: str) -> None:
    together = decode(name, list(range(8)), seed, do_sample=True)
    assert decode(name, rows, [seed] * len(rows), do_sample=True) == [together[row] for row in rows]


def test_the_same_prompt_under_several_seeds() -> None:
    texts = decode("llama", [0] * 8, list(range(8)), do_sample=True, top_k=0)
    assert len({str(text) for text in texts}) > 4
    assert len({str(text) for text in decode("llama", [0] * 8, 3, do_sample=True, top_k=0)}) == 1


def test_results_of_one_prompt_differ() -> None:
    (texts,) = decode("llama", [0], 3, do_sample=True, top_k=0, num_return_sequences=5)
    assert len({str(text) for text in texts}) > 3
    (fewer,) = decode("llama", [0], 3, do_sample=True, top_k=0, num_return_sequences=2)
    assert fewer == texts[:2]


def test_torchs_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    first, state = decode("llama", [0, 1], 8, do_sample=True), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert decode("llama", [0, 1], 8, do_sample=True) == first


def test_recorded_scores_change_nothing() -> None:
    flags: dict[str, Any] = {"do_sample": True, "top_p": 0.8, "temperature": 1.4, "seed": 5, "max_new_tokens": 12}
    model, inputs = tiny("llama"), prompt("llama", 3)
    result = genmode.generate(model, **inputs, **flags, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(result.sequences, genmode.generate(model, **inputs, **flags))


def test_the_plan_tells() -> None:
    model, inputs = tiny("llama"), prompt("llama", 1)
    assert genmode.explain(model, **inputs, seed=3, max_new_tokens=2).random == "a seed for each row"
    assert genmode.explain(model, **inputs, max_new_tokens=2).random == "torch's generator"


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([1], "1 numbers for 3 inputs"),
        ([1, 2, 3, 4], "4 numbers for 3 inputs"),
        ("x", "seed"),
        (1.5, "seed"),
        ([1, 2, "x"], "seed"),
    ],
)
def test_seeds_that_do_not_fit(seed: Any, message: str) -> None:
    with pytest.raises(genmode.ParameterError, match=message):
        genmode.generate(tiny("llama"), **prompt("llama", 3), seed=seed, do_sample=True, max_new_tokens=3)


class TestNoise:
    def test_seeds_of_rows(self) -> None:
        seeds = row_seeds(5, 2, 3, torch.device("cpu")).tolist()
        assert seeds[:3] == seeds[3:]
        assert len(set(seeds)) == 3
        assert row_seeds([5, 6], 2, 1, torch.device("cpu"))[0] == seeds[0]

    def test_numbers_depend_on_row_and_length_alone(self) -> None:
        seeds, like = torch.tensor([7, 8, 9]), torch.zeros(3, 6)
        noise = SeededNoise(seeds)
        noise.move(SimpleNamespace(decoded=torch.tensor([0, 4, 0]), taken_back=0), 2)
        whole = noise.exponential_full(like)
        places = torch.tensor([[5, 0], [1, 1], [2, 3]])
        assert torch.equal(noise.exponential_at(places), whole.gather(1, places))
        rows = torch.tensor([2, 0])
        assert torch.equal(noise.exponential_at(places[:2], rows), whole[rows].gather(1, places[:2]))
        alone = SeededNoise(seeds[1:2])
        alone.move(SimpleNamespace(decoded=torch.tensor([6]), taken_back=0))
        assert torch.equal(alone.exponential_full(like[:1]), whole[1:2])

    def test_numbers_follow_reordered_rows(self) -> None:
        noise, ids = SeededNoise(torch.tensor([7, 8])), torch.arange(4).expand(2, -1)
        before = noise.exponential_at(ids)
        noise.select(torch.tensor([1, 0]))
        assert torch.equal(noise.exponential_at(ids), before[[1, 0]])
        noise.select(torch.tensor([1, 1]))  # the first goes on as the row was, the second is a fork
        assert torch.equal(noise.exponential_at(ids)[0], before[0])
        assert not torch.isclose(noise.exponential_at(ids)[1], before[0]).any()

    def test_each_draw_of_a_step_has_numbers_of_its_own(self) -> None:
        noise, like = SeededNoise(torch.tensor([3, 3, 4])), torch.zeros(3, 50)
        draws = [noise.exponential_full(like)[0], noise.exponential_full(like)[0]]
        draws.append(noise.of(slice(None, None, 3)).exponential_full(like[:1])[0])
        assert not any(torch.isclose(a, b).any() for a, b in pairwise(draws))

    def test_uniform_numbers_of_one_step_differ(self) -> None:
        noise = SeededNoise(torch.tensor([7, 8]))
        first, second = noise.uniform(), noise.uniform()
        assert not torch.equal(first, second)
        noise.move(SimpleNamespace(decoded=noise.decoded, taken_back=0))
        assert torch.equal(noise.uniform(), first)

    def test_torchs_own(self) -> None:
        noise = TorchNoise(2, torch.device("cpu"))
        torch.manual_seed(4)
        drawn = noise.exponential_full(torch.zeros(2, 5))
        torch.manual_seed(4)
        assert torch.equal(drawn, torch.empty(2, 5).exponential_())
        noise.select(torch.tensor([0, 0, 1]))
        assert noise.uniform().shape == (3,)
