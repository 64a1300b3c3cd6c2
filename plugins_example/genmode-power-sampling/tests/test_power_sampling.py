"""Numbers that can be checked by hand, the kernel by enumeration, then whole calls on a toy distribution.

The toy has two tokens, A and B, and E, which ends a text; a text has at most three tokens. A processor puts its
probabilities in the place of the model's, so that all else is a real call.
"""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import pytest
import torch
from genmode_power_sampling import PowerSampling
from genmode_power_sampling.chain import Texts, log_ratio

import genmode
from genmode.testing import isolated_host

E, A, B = 4, 5, 6
LONGEST = 3
LEVEL = 1e-3
"""Of the chi-square tests: so often would a sound sampler fail under another seed."""

TREE = torch.tensor(
    [  # E, A, B behind: nothing, A, B, AA, AB, BA, BB
        [1 / 4, 1 / 4, 1 / 2], [1 / 8, 5 / 8, 1 / 4], [1 / 2, 1 / 4, 1 / 4], [3 / 4, 1 / 8, 1 / 8],
        [1 / 3, 1 / 3, 1 / 3], [1 / 10, 8 / 10, 1 / 10], [1 / 4, 1 / 2, 1 / 4],
    ],
    dtype=torch.float64,
)  # fmt: skip


class Toy(genmode.LogitsProcessor):
    """The probabilities of a tree in place of the model's."""

    contract_version = 1
    stage = genmode.Stage.BIAS
    tree = TREE

    def process(self, scores: torch.Tensor, history: genmode.History) -> torch.Tensor:
        node = torch.zeros(history.rows, dtype=torch.long)
        for place in range(LONGEST - 1):
            there = history.lengths - history.prompt > place
            column = min(history.prompt + place, history.tokens.shape[1] - 1)
            node = torch.where(there, 2 * node + 1 + (history.tokens[:, column] == B), node)
        toy = torch.full_like(scores, -torch.inf)
        node = node.clamp(max=len(self.tree) - 1)  # rows that are done are asked about as well
        toy[:, [E, A, B]] = self.tree[node].log().float()
        return toy


class PaperToy(Toy):
    """AB 0.4, BA 0.3, BB 0.3: the first token is more often B, and the most probable text begins with A."""

    tree = torch.tensor([[0, 0.4, 0.6], [0, 0, 1.0], [0, 0.5, 0.5]], dtype=torch.float64)


def node_of(prefix: tuple[int, ...]) -> int:
    node = 0
    for token in prefix:
        node = 2 * node + 1 + (token == B)
    return node


def texts() -> list[tuple[int, ...]]:
    """All that end, or have the longest length: 1 + 2 + 4 with an end, and 8 without."""
    found = [
        (*head, E) for size in range(LONGEST) for head in itertools.product((A, B), repeat=size)
    ] + list(itertools.product((A, B), repeat=LONGEST))  # fmt: skip
    return found


def logs(text: tuple[int, ...], power: float = 1.0) -> list[float]:
    """log of the probability of each token, where each is drawn at temperature 1 / power."""
    found: list[float] = []
    for place, token in enumerate(text):
        weights = TREE[node_of(text[:place])] ** power
        found.append(float((weights / weights.sum())[token - E].log()))
    return found


def target(alpha: float) -> torch.Tensor:
    weights = torch.tensor([math.exp(alpha * sum(logs(text))) for text in texts()], dtype=torch.float64)
    return weights / weights.sum()


def as_texts(rows: list[tuple[int, ...]], tau: float) -> Texts:
    """Texts of the toy as the chain holds them."""

    def table(power: float) -> torch.Tensor:
        return torch.tensor([logs(row, power) + [0.0] * (LONGEST - len(row)) for row in rows], dtype=torch.float64)

    tokens = torch.tensor([[*row, *[E] * (LONGEST - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return Texts(tokens, lengths, torch.tensor([row[-1] == E for row in rows]), table(1.0), table(1 / tau))


def test_ratio_of_two_texts_by_hand() -> None:
    # From E to BA E, alpha 2, tau 1: log q is log p, so each text's share is p^(2 - 1).
    # p(E) = 1/4, p(BAE) = 1/2 * 1/4 * 1/10 = 1/80; lengths 1 and 3: r = (1/80) / (1/4) * 1/3 = 1/60.
    old, new = as_texts([(E,)], 1.0), as_texts([(B, A, E)], 1.0)
    assert float(log_ratio(old, new, 2.0).exp()) == pytest.approx(1 / 60)
    assert float(log_ratio(new, old, 2.0).exp()) == pytest.approx(60)
    # At tau = 1 / alpha what is left is the sums of p^2 at each position from the first that differs on:
    # (A, A, A) and (A, A, B) share two tokens, and the third is drawn from the same weights: r = 1.
    same = log_ratio(as_texts([(A, A, A)], 0.5), as_texts([(A, A, B)], 0.5), 2.0)
    assert float(same) == pytest.approx(0)


@pytest.mark.parametrize(("alpha", "tau"), [(4.0, 0.25), (2.0, 1.0), (0.5, 1.0), (3.0, 0.7)])
def test_power_is_invariant_under_the_exact_kernel(alpha: float, tau: float) -> None:
    every = texts()
    kernel = torch.zeros(len(every), len(every), dtype=torch.float64)
    for (i, old), (j, new) in itertools.product(enumerate(every), repeat=2):
        accepted = min(1.0, float(log_ratio(as_texts([old], tau), as_texts([new], tau), alpha).exp()))
        for place in range(len(old)):  # drawn uniformly; the tokens before it stay
            if new[:place] == old[:place]:
                drawn_anew = math.exp(sum(logs(new, 1 / tau)[place:]))
                kernel[i, j] += drawn_anew * accepted / len(old)
                kernel[i, i] += drawn_anew * (1 - accepted) / len(old)
    torch.testing.assert_close(kernel.sum(1), torch.ones(len(every), dtype=torch.float64))
    torch.testing.assert_close(target(alpha) @ kernel, target(alpha), atol=1e-12, rtol=0)
    flow = target(alpha)[:, None] * kernel
    torch.testing.assert_close(flow, flow.T, atol=1e-12, rtol=0)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def sampled(model: Any, rows: int, toy: genmode.LogitsProcessor | None = None, **flags: Any) -> list[tuple[int, ...]]:
    """What so many rows decode, each with a seed of its own, without the padding."""
    with isolated_host(PowerSampling):
        found = genmode.generate(
            model, torch.tensor([[1, 7]]).expand(rows, -1), attention_mask=torch.ones(rows, 2, dtype=torch.long),
            processors=[toy or Toy()], top_k=0, eos_token_id=E, pad_token_id=0, seed=list(range(rows)),
            **{"strategy": "power_sampling", "max_new_tokens": LONGEST, **flags},
        )  # fmt: skip
    return [tuple(token for token in row if token) for row in found[:, 2:].tolist()]


def chi_square(found: list[tuple[int, ...]], shares: torch.Tensor) -> float:
    """P-value of Pearson's statistic; texts that are expected less than five times are counted as one."""
    counts = torch.tensor([found.count(text) for text in texts()], dtype=torch.float64)
    assert counts.sum() == len(found)
    expected = shares * len(found)
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2, dtype=torch.float64), statistic / 2))


@pytest.mark.parametrize(
    "flags",
    [
        {"power_alpha": 2.0, "power_block": 3, "power_moves": 25},
        {"power_alpha": 2.0, "power_block": 1, "power_moves": 20},
        {"power_alpha": 3.0, "power_block": 2, "power_moves": 40, "power_proposal_temperature": 1.0},
        {"power_alpha": 0.5, "power_block": 3, "power_moves": 40, "power_proposal_temperature": 1.0},
    ],
    ids=["one block", "blocks of one", "proposals of the model", "flatter"],
)
def test_chains_have_the_distribution_of_the_power(model: Any, flags: dict[str, Any]) -> None:
    found = sampled(model, 3000, **flags)
    assert chi_square(found, target(flags["power_alpha"])) > LEVEL


def test_sampling_at_a_temperature_has_another(model: Any) -> None:
    found = sampled(model, 3000, strategy="sample", do_sample=True, temperature=0.5)
    assert chi_square(found, target(2.0)) < 1e-9
    found = sampled(model, 3000, strategy="sample", do_sample=True)
    assert chi_square(found, target(1.0)) > LEVEL


def test_prefers_the_token_that_leads_to_the_probable_text(model: Any) -> None:
    # 0.4^4 / (0.4^4 + 2 * 0.3^4) = 0.0256 / 0.0418 = 0.612; at temperature 1/4 it is 0.4^4 / (0.4^4 + 0.6^4) = 0.165.
    found = sampled(model, 2000, PaperToy(), max_new_tokens=2, power_moves=25)
    share, deviation = found.count((A, B)) / 2000, math.sqrt(0.612 * 0.388 / 2000)
    assert abs(share - 0.612) < 4 * deviation  # fails once in 16000 seeds
    assert sampled(model, 2000, PaperToy(), max_new_tokens=2, power_moves=0).count((A, B)) / 2000 < 0.2


def forwards(model: Any, **flags: Any) -> int:
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    hook = model.register_forward_pre_hook(counted)
    try:
        sampled(model, 4, **{"max_new_tokens": 24, "power_block": 3, "power_moves": 3, **flags})
    finally:
        hook.remove()
    return count


def test_rows_that_have_ended_may_be_done(model: Any) -> None:
    class Ends(Toy):
        tree = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]] + [[1.0, 0.0, 0.0]] * 4).double()

    assert forwards(model, toy=Ends(), power_stop=True) * 3 < forwards(model, toy=Ends())


def test_the_clock_is_refused_before_the_model_runs(model: Any) -> None:
    with pytest.raises(genmode.ParameterError, match="max_time"):
        sampled(model, 1, max_time=1.0)


def test_a_chain_is_cancelled_between_two_moves(model: Any) -> None:
    cancel, seen = threading.Event(), []

    def counted(*_: Any) -> None:
        seen.append(1)
        if len(seen) == 10:
            cancel.set()

    hook = model.register_forward_pre_hook(counted)
    try:
        with pytest.raises(genmode.CancelledError):
            sampled(model, 2, cancel=cancel, power_moves=1000)
    finally:
        hook.remove()
    assert len(seen) <= 10 + LONGEST


def test_penalties_see_the_text_in_progress(model: Any) -> None:
    # With every token at most once in a row, and three tokens left, a text of three has each of them.
    class Few(genmode.LogitsProcessor):
        contract_version = 1

        def process(self, scores: torch.Tensor, history: genmode.History) -> torch.Tensor:
            few = torch.full_like(scores, -torch.inf)
            few[:, [10, 11, 12]] = scores[:, [10, 11, 12]]
            return few

    for text in sampled(model, 20, Few(), no_repeat_ngram_size=1, power_block=2, power_moves=5):
        assert sorted(text) == [10, 11, 12]
