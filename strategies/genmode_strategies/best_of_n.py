"""Best of n: several continuations are sampled, and those that the model thinks least of leave on the way.

Each input starts with n rows. Behind every `best_of_every` tokens those with the lower

    m = 1 / t * sum over the t tokens so far of log p(token | what was before)  +  w * r(text so far)

leave, half of them, and never more than leaves as many as are asked for; in the end the best are the results, best
first. p is the model's own distribution, before processors; r is `best_of_scorer`, and w its weight, without which m is
the mean log-probability alone. Equal m keep the order of the rows.

Sources: rejection of the worse half on the way, Sun et al. 2024, "Fast Best-of-N Decoding via Speculative Rejection"
(https://arxiv.org/abs/2410.20290), section 4, there by a reward model alone: a great w.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode


class BestOfN(genmode.Strategy):
    """Samples n rows for each input and keeps the best. Shapes: scores `[rows, vocab]` give tokens `[rows]`."""

    contract_version = 1
    name = "best_of_n"
    paper = "Sun et al. 2024, Speculative Rejection, https://arxiv.org/abs/2410.20290"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.POPULATION})

    class Params(genmode.Params):
        """Parameters of `best_of_n`."""

        best_of: int = Field(8, ge=1, description="rows that each input starts with", examples=[4])
        best_of_every: int = Field(16, ge=1, description="tokens behind which the worse half leaves", examples=[2])
        best_of_scorer: Any = Field(
            None,
            exclude=True,
            description="what judges the text too: a function of texts, a model, or a genmode.Scoring",
        )
        best_of_weight: float = Field(
            1.0, ge=-1e6, le=1e6, description="weight of the scorer beside the mean log-probability"
        )

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Raises ParameterError for a weight of nothing."""
        if params.best_of_scorer is None and params.best_of_weight != 1:
            raise genmode.ParameterError(
                f"best_of_weight={params.best_of_weight:g} is the weight of best_of_scorer, which is not given: give one, or "
                "leave the weight out"
            )

    @classmethod
    def rows_per_input(cls, params: Any, results: int) -> int:
        """`best_of`, and never fewer than the results."""
        return max(int(params.best_of), results)

    def decode(self, session: genmode.Session, params: Any) -> None:
        """Sample, let the worse half leave, and return the best."""
        results: int = session.generation_config.num_return_sequences or 1
        total = torch.zeros(session.rows, device=session.device)
        count = torch.zeros_like(total)
        score = None
        if params.best_of_scorer is not None and params.best_of_weight:
            score = session.scorer(params.best_of_scorer)

        def judged() -> Tensor:
            mean = total / count
            return mean if score is None else mean + params.best_of_weight * score()

        for step in session.steps():
            running, log_p, tokens = session.unfinished, step.log_probabilities, step.sample()
            total += log_p.gather(1, tokens[:, None])[:, 0].where(running, 0.0)
            count += running
            step.commit(tokens)
            each = session.rows // session.num_inputs
            if (step.index + 1) % params.best_of_every == 0 and each > results:
                left = best(judged(), session.num_inputs, max(results, each - each // 2)).sort().values
                session.drop(complement(left, session.rows))
                total, count = total[left], count[left]
        order, rows = best(judged(), session.num_inputs, results), session.rows
        session.fork(order)
        session.drop(torch.arange(rows, device=session.device))


def best(values: Tensor, inputs: int, count: int) -> Tensor:
    """The rows of the `count` highest of `values` `[rows]` of each input, best first, the first of equals: `[n]`, long."""
    order = values.view(inputs, -1).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return (order + torch.arange(inputs, device=values.device)[:, None] * (len(values) // inputs)).flatten()


def complement(rows: Tensor, count: int) -> Tensor:
    """Those of `count` rows that `rows` `[n]` does not name: long."""
    left = torch.ones(count, dtype=torch.int, device=rows.device).index_fill_(0, rows, 0)
    return left.argsort(descending=True, stable=True)[: count - len(rows)]
