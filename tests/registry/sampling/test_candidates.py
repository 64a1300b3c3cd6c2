"""The fused end of a chain draws the tokens of the unfused one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

import genmode
from genmode.sampling import candidates
from genmode.sampling import counter_rng as counter
from genmode.sampling.candidates import Candidates, GeneratorNoise, draw, narrowing
from genmode_processors.truncation.cutoffs import EpsilonCutoff, EtaCutoff
from genmode_processors.truncation.entropy_temperature import DynamicTemperature
from genmode_processors.truncation.min_k import MinK
from genmode_processors.truncation.min_p import MinP, TopA
from genmode_processors.truncation.mirostat import Mirostat
from genmode_processors.truncation.p_less import PLess, PLessNorm
from genmode_processors.truncation.tail_free import TailFree
from genmode_processors.truncation.temperature import Temperature
from genmode_processors.truncation.top_h import TopH
from genmode_processors.truncation.top_k import TopK
from genmode_processors.truncation.top_n_sigma import TopNSigma
from genmode_processors.truncation.top_p import TopP
from genmode_processors.truncation.typical import TypicalP
from genmode_processors.truncation.xtc import Xtc

from ...waits import never_waiting

HISTORY: Any = SimpleNamespace(level=1)
ROWS = 6


class SeedNoise:
    def __init__(self, rows: int, step: int, device: str = "cpu") -> None:
        self.keys, self.step = torch.arange(rows, device=device) * 12345 + 7, step

    def exponential_at(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        return counter.exponential(self.keys if rows is None else self.keys[rows], self.step, ids)


CHAINS: list[list[genmode.LogitsProcessor]] = [
    [],
    [Temperature(temperature=0.8)],
    [TopK(top_k=5)],
    [Temperature(temperature=0.8), TopK(top_k=50), TopP(top_p=0.9)],
    [Temperature(temperature=1.5), TopP(top_p=0.9)],
    [TopP(top_p=0.2), TopK(top_k=3)],
    [TopP(top_p=0.9), MinP(min_p=0.05), TopK(top_k=7)],
    [MinP(min_p=0.02), Temperature(temperature=3.0)],
    [TopK(top_k=20), TypicalP(typical_p=0.7), EtaCutoff(eta_cutoff=0.02)],
    [TypicalP(typical_p=0.5)],
    [EpsilonCutoff(epsilon_cutoff=0.01), TopP(top_p=0.8)],
    [EtaCutoff(eta_cutoff=0.01), TopA(top_a=0.2)],
    [TopH(top_h=0.6), TopK(top_k=10), TopP(top_p=0.99)],
    [TopNSigma(top_n_sigma=1.5), Temperature(temperature=2.0)],
    [Temperature(temperature=0.7), MinK(min_k_tau=3.0)],
    [TopK(top_k=30), TailFree(tfs=0.9), PLess()],
    [TopP(top_p=0.97), PLessNorm()],
    [MinP(min_p=0.01), Xtc(xtc_probability=0.5)],
    [Xtc(xtc_probability=1.0), TopK(top_k=4)],
    [TopK(top_k=40), Xtc(xtc_probability=0.5), TopP(top_p=0.9), Temperature(temperature=1.2)],
    [Temperature(temperature=1.1), Mirostat(mirostat_tau=3.0)],
    [TopK(top_k=60), Mirostat(mirostat_mode=1, mirostat_tau=2.5)],
]


def scores_of(kind: str, seed: int, vocab: int) -> Tensor:
    scores = torch.randn(ROWS, vocab, generator=torch.Generator().manual_seed(seed)) * 3
    if kind == "bfloat16":
        return scores.bfloat16().float()
    if kind == "ties":
        return scores.round()
    if kind == "masked":
        return scores.masked_fill(torch.arange(vocab) % 3 > 0, -torch.inf)
    return scores * (0.1 if kind == "flat" else 4 if kind == "steep" else 1)


def begin(chain: Sequence[genmode.LogitsProcessor], seed: int, vocab: int = 300, device: str = "cpu") -> None:
    drawn = iter(range(1000))
    keys = torch.arange(ROWS, device=device)
    session: Any = SimpleNamespace(
        rows=ROWS, device=device, eos_token_ids=[1], tokenizer=None, vocab_size=vocab, history=HISTORY,
        uniform=lambda: counter.uniform(keys, seed, next(drawn)),
    )  # fmt: skip
    for processor in chain:
        processor.begin(session)


def unfused(chain: Sequence[genmode.LogitsProcessor], scores: Tensor, noise: Any) -> Tensor:
    for processor in chain:
        scores = processor.process(scores, HISTORY)
    return draw([], scores, HISTORY, noise)


@pytest.fixture(params=["as it is", "narrow"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Also with so few candidates that rows often need more."""
    if request.param == "narrow":
        monkeypatch.setattr(candidates, "WIDTH", 9)
        monkeypatch.setattr(candidates, "SPARE", 1)
    with candidates.never_whole():
        yield str(request.param)


@pytest.mark.parametrize("kind", ["plain", "flat", "steep", "ties", "bfloat16", "masked"])
@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_same_tokens(chain: list[genmode.LogitsProcessor], kind: str, width: str) -> None:
    for seed in range(5):
        scores = scores_of(kind, seed, 300)
        noise = SeedNoise(ROWS, seed)
        begin(chain, seed)
        expected = unfused(chain, scores.clone(), noise)
        begin(chain, seed)
        assert torch.equal(draw(chain, scores.clone(), HISTORY, noise), expected)
        begin(chain, seed)
        torch.manual_seed(seed)
        expected, state = unfused(chain, scores.clone(), GeneratorNoise()), torch.get_rng_state()
        begin(chain, seed)
        torch.manual_seed(seed)
        assert torch.equal(draw(chain, scores.clone(), HISTORY, GeneratorNoise()), expected)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["steep", "bfloat16", "masked"])
@pytest.mark.parametrize(
    "chain",
    [[TopP(top_p=0.5)], [MinP(min_p=0.3), TopP(top_p=0.9)], [TopA(top_a=0.5)], [Mirostat(mirostat_tau=2.0)]],
    ids=repr,
)
def test_same_tokens_where_rows_have_different_numbers_of_candidates(
    chain: list[genmode.LogitsProcessor], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "WIDTH", 60)
    for seed in range(5):
        scores = scores_of(kind, seed, 9001)
        assert candidates._begin(scores, 0).ragged
        noise = SeedNoise(ROWS, seed)
        begin(chain, seed, 9001)
        expected = unfused(chain, scores.clone(), noise)
        begin(chain, seed, 9001)
        assert torch.equal(draw(chain, scores.clone(), HISTORY, noise), expected)


@pytest.mark.oldest
@pytest.mark.parametrize("kind", ["plain", "ties", "bfloat16"])
@pytest.mark.parametrize(
    "values", [{"top_k": 50, "top_p": 0.9}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"typical_p": 0.8}]
)
def test_same_tokens_as_transformers(values: dict[str, float], kind: str) -> None:
    """softmax and torch.multinomial behind transformers' own classes, from the same state of the generator."""
    makers: dict[str, tuple[Any, Any]] = {
        "top_k": (theirs.TopKLogitsWarper, TopK),
        "top_p": (theirs.TopPLogitsWarper, TopP),
        "min_p": (theirs.MinPLogitsWarper, MinP),
        "typical_p": (theirs.TypicalLogitsWarper, TypicalP),
    }
    twins = [theirs.TemperatureLogitsWarper(0.8), *(makers[key][0](value) for key, value in values.items())]
    chain = [Temperature(temperature=0.8), *(makers[key][1](**{key: value}) for key, value in values.items())]
    for seed in range(20):
        scores = scores_of(kind, seed, 9001)
        torch.manual_seed(seed)
        masked = scores
        for twin in twins:
            masked = twin(None, masked)
        expected, state = torch.multinomial(masked.softmax(-1), 1)[:, 0], torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(draw(chain, scores.clone(), HISTORY, GeneratorNoise()), expected)
        assert torch.equal(torch.get_rng_state(), state)


def test_draws_follow_the_distribution() -> None:
    """Chi-square over 20,000 rows with 7 degrees of freedom; a right sampler fails once in 10,000 seeds."""
    shares = torch.tensor([0.3, 0.25, 0.15, 0.1, 0.1, 0.05, 0.03, 0.02])
    scores = shares.log().expand(20_000, -1).clone()
    tokens = draw([TopP(top_p=1.0)], scores, HISTORY, SeedNoise(20_000, 3))
    counts = torch.bincount(tokens, minlength=8)
    assert float(((counts - 20_000 * shares) ** 2 / (20_000 * shares)).sum()) < 29.9


def test_rows_done_again_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    class Watched(TopP):
        contract_version = 1

        def redo(self, scores: Tensor, rows: Tensor, history: Any) -> Tensor:
            done.append(len(rows))
            return super().redo(scores, rows, history)

    chain = [Temperature(temperature=0.8), Watched(top_p=0.9)]
    for step in range(50):
        draw(chain, scores_of("plain", step, 30_000), HISTORY, SeedNoise(ROWS, step))
    assert sum(done) <= 5  # of 300


@pytest.mark.parametrize("chain", [[], [TopK(top_k=3)], [TopP(top_p=0.5)], [Temperature(temperature=2.0)]], ids=repr)
def test_a_row_of_masked_tokens_draws_token_0(chain: list[genmode.LogitsProcessor]) -> None:
    scores = scores_of("plain", 0, 50)
    scores[2] = -torch.inf
    tokens = draw(chain, scores, HISTORY, SeedNoise(ROWS, 0))
    assert tokens.shape == (ROWS,)
    assert tokens.dtype == torch.long
    assert tokens[2] == 0


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_a_vocabulary_of_one_token(chain: list[genmode.LogitsProcessor]) -> None:
    begin(chain, 0, vocab=1)
    assert draw(chain, torch.zeros(ROWS, 1), HISTORY, SeedNoise(ROWS, 0)).tolist() == [0] * ROWS


def test_unchecked_candidates_draw_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on accelerators, where nothing is checked: k best and more, the tokens of the unfused chain."""
    begun = candidates._begin

    def unchecked(dense: Tensor, k: int) -> Candidates:
        made = begun(dense, k)
        made.checked = False
        return made

    chain = [Temperature(temperature=0.8), TopK(top_k=50), TopP(top_p=0.9), MinP(min_p=0.02)]
    for seed in range(30):
        scores = scores_of("plain", seed, 3000)
        expected = unfused(chain, scores.clone(), SeedNoise(ROWS, seed))
        with monkeypatch.context() as patch:
            patch.setattr(candidates, "_begin", unchecked)
            assert torch.equal(draw(chain, scores.clone(), HISTORY, SeedNoise(ROWS, seed)), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_on_a_gpu_nothing_waits_and_the_tokens_are_the_same(chain: list[genmode.LogitsProcessor]) -> None:
    differ = 0
    for seed in range(8):
        scores = scores_of("plain", seed, 40_000).cuda()
        noises = (SeedNoise(ROWS, seed, "cuda"), GeneratorNoise())
        for noise in noises:
            found: list[Tensor] = []
            for sample in (unfused, lambda chain, scores, noise: draw(chain, scores, HISTORY, noise)):
                begin(chain, seed, 40_000, "cuda")
                torch.manual_seed(seed)
                given = scores.clone()
                torch.cuda.synchronize()
                with never_waiting("cuda"):
                    tokens = sample(chain, given, noise)
                    for processor in chain:
                        processor.accept(tokens)
                found.append(tokens)
            differ += int((found[0] != found[1]).sum())
    assert differ == 0


@pytest.mark.gpu
def test_on_a_gpu_the_tokens_are_transformers() -> None:
    twins = [theirs.TemperatureLogitsWarper(0.8), theirs.TopKLogitsWarper(50), theirs.TopPLogitsWarper(0.9)]
    chain = [Temperature(temperature=0.8), TopK(top_k=50), TopP(top_p=0.9)]
    for seed in range(50):
        scores = scores_of("plain", seed, 40_000).cuda()
        torch.manual_seed(seed)
        masked = scores
        for twin in twins:
            masked = twin(None, masked)
        expected, state = torch.multinomial(masked.softmax(-1), 1)[:, 0], torch.cuda.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(draw(chain, scores.clone(), HISTORY, GeneratorNoise()), expected)
        assert torch.equal(torch.cuda.get_rng_state(), state)


def test_the_longest_suffix_that_narrows() -> None:
    chain = [TopK(top_k=3), DynamicTemperature(), Temperature(), TopP(top_p=0.5)]
    assert narrowing(chain) == 2
    assert narrowing([]) == 0
    assert narrowing([DynamicTemperature()]) == 1


# candidates ------------------------------------------------------------------------------------------


def test_cut_by_hand() -> None:
    dense = torch.tensor([[0.0, 5.0, 4.0, 3.0, -1.0]])
    made = Candidates(torch.tensor([[5.0, 4.0, 3.0]]), torch.tensor([[1, 2, 3]]), 5, dense, checked=True)
    cut = made.cut(torch.tensor([[True, True, False]]))
    assert cut.scores.tolist() == [[5.0, 4.0, -torch.inf]]
    assert cut.dense is None
    assert cut.misfits is not None
    assert cut.misfits.tolist() == [False]
    whole = made.cut(torch.tensor([[True, True, True]]))
    assert whole.misfits is not None
    assert whole.misfits.tolist() == [True]  # token 0 or 4 might have been kept too
    assert made.scores.tolist() == [[5.0, 4.0, 3.0]]


def test_shares_count_the_tokens_outside() -> None:
    dense = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    made = Candidates(dense[:, :2], torch.tensor([[0, 1]]), 4, dense)
    assert torch.allclose(made.shares(), torch.tensor([[0.5, 0.25]]).double())
    made.dense = None
    assert torch.allclose(made.shares(), torch.tensor([[2 / 3, 1 / 3]]).double())


def test_split_puts_ties_across_the_edge_in_doubt() -> None:
    made = Candidates(torch.tensor([[3.0, 2.0, 2.0, 2.0, 1.0]]), torch.arange(5)[None], 5, None, checked=True)
    none = torch.zeros(1, 5, dtype=torch.bool)
    kept, doubt = made.split(torch.tensor([[True, True, True, False, False]]), none)
    assert kept.tolist() == [[True, True, True, True, False]]
    assert doubt is not None
    assert doubt.tolist() == [[False, True, True, True, False]]
    kept, doubt = made.split(torch.tensor([[True, True, True, True, False]]), none)
    assert kept.tolist() == [[True, True, True, True, False]]
    assert doubt is None
    near = torch.tensor([[False, False, False, True, False]])
    kept, doubt = made.split(torch.tensor([[True, True, True, True, False]]), near)
    assert doubt is not None
    assert doubt.tolist() == [[False, True, True, True, False]]
