"""SynthID's detectors."""

from __future__ import annotations

import pytest
import torch

import genmode
from genmode.watermark.detection import judge

from .marks_support import make
from .schemes_support import drawn_text

VOCAB = 100


def test_the_bayesian_posterior_is_that_of_transformers_detector() -> None:
    import transformers
    from transformers.generation.watermarking import BayesianDetectorConfig, BayesianDetectorModel

    depth = 6
    text = torch.randint(0, VOCAB, (4, 30), generator=torch.Generator().manual_seed(2))
    detector = BayesianDetectorModel(BayesianDetectorConfig(watermarking_depth=depth, base_rate=0.4))
    likelihood = detector.likelihood_model_watermarked
    with torch.no_grad():
        likelihood.beta.copy_(torch.randn(1, 1, depth))
        likelihood.delta.copy_(torch.randn(1, 1, depth, depth) * 0.3)
        detector.prior.fill_(0.4)
    mark = make(
        "synthid", depth=depth, synthid_beta=tuple(likelihood.beta.flatten().tolist()),
        synthid_delta=tuple(map(tuple, likelihood.delta[0, 0].tolist())),
    )  # fmt: skip
    coins, _, where = mark.coins_of(text)
    with torch.no_grad():
        theirs = detector(coins.view(4, -1, depth).float(), where[:, 4:].float())[0]
    assert transformers.__version__
    assert mark.posterior(text, 0.4).tolist() == pytest.approx(theirs.tolist(), rel=1e-4)


def test_a_fitted_bayesian_detector_finds_the_mark() -> None:
    mark = make("synthid", depth=8)
    beta = mark.fit(drawn_text(mark, 20, 100))
    assert len(beta) == 8
    bayes = make("synthid", depth=8, synthid_beta=beta)
    marked = drawn_text(mark, 6, 100)
    chance = torch.randint(0, VOCAB, (300, 60), generator=torch.Generator().manual_seed(8))
    assert all(one.marked for one in judge(bayes, marked))
    assert (bayes.posterior(marked) > 0.99).all()
    assert sum(bool(one.marked) for one in judge(bayes, chance)) <= 11  # 1% is 3; p < 3e-4
    with pytest.raises(genmode.ParameterError, match="synthid_beta"):
        mark.posterior(marked)


def test_the_null_of_log_likelihood_ratios_is_that_of_fair_coins() -> None:
    mark = make("synthid", depth=3, synthid_beta=(0.0, 1.0, -1.0), synthid_delta=((0.0,) * 3, (1.0, 0.0, 0.0), (0.5, -1.0, 0.0)))  # fmt: skip
    null = mark.null()
    coins = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]).double()
    said = mark._says(coins)
    assert said.exp().mean() == pytest.approx(1.0)  # a likelihood ratio
    assert null.mean == pytest.approx(float(said.mean()), abs=1e-3)
    for value in said:
        exact = float((said >= value - 1e-9).double().mean())
        assert null.tail(mark._rounded(value[None]), None) == pytest.approx(exact)
