"""Numbers that can be checked by hand, then a real call on a tiny random Llama."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from genmode_steady import EntropyGate, FactualNucleus

import genmode

VOCAB = 100


class Step:
    """A step with given logits whose draw is always token 2."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = self.scores = logits
        self.committed = torch.empty(0)

    def sample(self) -> torch.Tensor:
        return torch.full((len(self.logits),), 2)

    def commit(self, tokens: torch.Tensor) -> None:
        self.committed = tokens

    def best(self) -> torch.Tensor:
        return self.scores.argmax(-1)


def probabilities(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def history(rows: list[list[int]], prompt: int = 1) -> genmode.History:
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    tokens = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    return genmode.History(tokens, lengths, torch.zeros_like(lengths), prompt, None)


def processor(ends: tuple[int, ...] = (7,), **params: Any) -> FactualNucleus:
    made = FactualNucleus(factual_sentence_ends=ends, **params)
    made.begin(SimpleNamespace(vocab_size=VOCAB, device=torch.device("cpu"), tokenizer=None))  # type: ignore[arg-type]
    return made


def test_gate_is_greedy_up_to_the_entropy_and_draws_beyond_it() -> None:
    # Entropies: ln 2 = 0.693 of two equal tokens, 0 of a sure one, ln 4 = 1.386 of four equal tokens.
    step = Step(probabilities([0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]))
    gate = EntropyGate(gate_entropy=math.log(2) + 1e-6)
    session: Any = SimpleNamespace(steps=lambda: [step], replay=lambda function, *arguments: function(*arguments))
    gate.decode(session, gate.params)
    assert step.committed.tolist() == [0, 1, 2]


def test_nucleus_shrinks_along_the_sentence_and_widens_after_its_end() -> None:
    scores = probabilities(*[[0.5, 0.3, 0.15, 0.05]] * 4)
    nucleus = processor(factual_p=0.9, factual_decay=0.5, factual_floor=0.1)
    # One prompt token; then t = 1: p 0.9, t = 2: 0.45, t = 3: 0.225, and t = 1 again behind the end, 7.
    kept = nucleus.process(scores, history([[0], [0, 1], [0, 1, 1], [0, 1, 7]])).isfinite()
    assert kept.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]


def test_floor_holds_and_the_prompt_does_not_count() -> None:
    scores = probabilities(*[[0.4, 0.3, 0.2, 0.1]] * 2)
    nucleus = processor(factual_p=0.9, factual_decay=0.1, factual_floor=0.6)
    kept = nucleus.process(scores, history([[7, 1, 1], [1, 1, 1]], prompt=1)).isfinite()
    assert kept.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_without_tokenizer_and_ids_it_says_what_to_give() -> None:
    context: Any = SimpleNamespace(vocab_size=VOCAB, device=torch.device("cpu"), tokenizer=None)
    with pytest.raises(genmode.ParameterError, match="factual_sentence_ends"):
        FactualNucleus().begin(context)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_both_are_found_and_run(model: Any) -> None:
    prompt = torch.tensor([[1, 5, 9]])
    greedy = genmode.generate(model, prompt, strategy="greedy_search", max_new_tokens=12)
    shut = genmode.generate(model, prompt, strategy="entropy_gate", gate_entropy=100.0, max_new_tokens=12)
    assert torch.equal(shut, greedy)
    drawn = genmode.generate(model, prompt, strategy="entropy_gate", gate_entropy=0.0, seed=1, max_new_tokens=12)
    assert not torch.equal(drawn, greedy)
    narrow = genmode.generate(
        model, prompt, do_sample=True, factual_p=1e-6, factual_floor=0.0, factual_sentence_ends=[7],
        max_new_tokens=12,
    )  # fmt: skip
    assert torch.equal(narrow, greedy)
