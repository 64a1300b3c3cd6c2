"""Sequential Monte Carlo: whole texts from a power of the model's distribution, by weighted rows that are resampled.

With p_t = softmax(scores_t) after all processors and alpha the power, the target over whole texts x is

    pi(x) = prod_t p_t(x_t)^alpha / sum over all texts y of prod_t p_t(y_t)^alpha

Each input has n particles. A particle draws x_t from q_t = softmax(tau * scores_t) and gains the weight

    w <- w * p_t(x_t)^alpha / q_t(x_t)

When the effective sample size (sum w)^2 / sum w^2 of an input falls below `smc_threshold` * n, its particles are drawn
anew in proportion to their weights (systematic resampling: one number u, particle j takes the row in whose share of the
weights (j + u) / n lies), and all weights are equal again. A result is drawn from the last weights. As n grows its law
goes to pi; with n = 1 it is that of q.

tau = alpha, the default, is the proposal that looks one token ahead best: w gains sum_v p_t(v)^alpha, whatever x_t is.

Sources: Doucet and Johansen 2011, "A Tutorial on Particle Filtering and Smoothing", section 3.5 (systematic resampling
and ESS); Lew et al. 2023, "Sequential Monte Carlo Steering of Large Language Models using Probabilistic Programs"
(https://arxiv.org/abs/2306.03081); the target is that of Karan and Du 2025 (https://arxiv.org/abs/2510.14901).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode


class SequentialMonteCarlo(genmode.Strategy):
    """Draws whole texts from p(x)^alpha with particles. Shapes: scores `[rows, vocab]` give tokens `[rows]`.

    `num_return_sequences` texts are drawn from the same particles, one number for all of them, so they are spread as
    the weights are, but not independent.
    """

    contract_version = 1
    name = "sequential_monte_carlo"
    paper = "Lew et al. 2023, Sequential Monte Carlo Steering, https://arxiv.org/abs/2306.03081"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.POPULATION})

    class Params(genmode.Params):
        """Parameters of `sequential_monte_carlo`."""

        smc_particles: int = Field(8, ge=1, description="particles of each input", examples=[4])
        smc_power: float = Field(2.0, gt=0, le=1000, description="the power alpha; 1 is the model itself")
        smc_proposal_power: float | None = Field(
            None, gt=0, le=1000, description="the power tau of what particles draw from; smc_power if not given"
        )
        smc_threshold: float = Field(
            0.5, ge=0, le=1, description="resample below this share of effective particles; 0 for never, 1 for always"
        )

    @classmethod
    def rows_per_input(cls, params: Any, results: int) -> int:
        """The particles, whatever is asked for: results are drawn from them."""
        return int(params.smc_particles)

    def decode(self, session: genmode.Session, params: Any) -> None:
        """Propose, weigh, resample, and draw the results."""
        inputs, n, power = session.num_inputs, params.smc_particles, params.smc_power
        tau = params.smc_proposal_power or power
        stay = torch.arange(session.rows, device=session.device).view(inputs, n)
        log_w = torch.zeros(inputs, n, device=session.device)
        last = session.uniform()[::n]  # behind the loop numbers would hang on how long other inputs went on
        for step in session.steps():
            running, log_p = session.unfinished, step.scores.log_softmax(-1)
            step.scores = tau * step.scores
            log_q, tokens = step.scores.log_softmax(-1), step.sample()
            gain = (power * log_p - log_q).nan_to_num(nan=0.0).gather(1, tokens[:, None])[:, 0]
            log_w = log_w + gain.where(running, 0.0).view(inputs, n)
            few = (
                effective(log_w) < params.smc_threshold * n if params.smc_threshold < 1 else log_w[:, 0] == log_w[:, 0]
            )
            drawn = resampled(log_w, session.uniform()[::n], n)
            source = torch.where(few[:, None], drawn, stay - stay[:, :1])
            log_w = log_w.masked_fill(few[:, None], 0.0)
            rows = (source + stay[:, :1]).flatten()
            step.commit(tokens[rows], rows=rows)
        results: int = session.generation_config.num_return_sequences or 1
        chosen = resampled(log_w, last, results) + stay[:, :1]
        session.fork(chosen.flatten())
        session.drop(stay.flatten())


def effective(log_w: Tensor) -> Tensor:
    """The effective sample size (sum w)^2 / sum w^2 of weights `[inputs, n]`: `[inputs]`, float32."""
    return torch.exp(2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1))


def resampled(log_w: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Systematic resampling: `count` of the n particles of each input, `[inputs, count]`, long.

    Args:
        log_w: `[inputs, n]`, float32: log-weights.
        numbers: `[inputs]`, float32, in [0, 1).
        count: how many to draw.
    """
    reached = log_w.double().softmax(1).cumsum(1)
    places = (torch.arange(count, device=log_w.device) + numbers[:, None]) / count  # [inputs, count]
    return torch.searchsorted(reached / reached[:, -1:], places, right=True).clamp(max=log_w.shape[1] - 1)
