"""PowerSampling: draws a whole text from a power of the model's distribution.

Karan and Du 2025, "Reasoning with Sampling: Your Base Model is Smarter Than You Think", algorithm 1. With p(x) the
product of the probabilities of a text's tokens, the target is

    pi(x) = p(x)^alpha / sum over all texts y of p(y)^alpha

which is not sampling at temperature 1 / alpha: that sharpens each token by itself, this one prefers tokens that lead to
probable texts. A text is built up in blocks: each adds `power_block` tokens and is followed by `power_moves` moves of
Metropolis and Hastings over all that is decoded so far; see `chain`.

What p is: softmax of the scores after all processors of the call, each token with the history before it. So a ban is a
zero of p, a penalty or `temperature` changes p, and `top_k` (50 in transformers unless it is set to 0) cuts p; then
comes the power. Texts end with an end-of-sequence token or at the longest length. Criteria of other kinds cut the text
once the chain is done. The clock does not: `max_time` is refused.

Memory is that of two caches, since the chain runs beside the rows. Nothing is final before the chain ends, so a stream
gets the text at the end. Not supported: models whose state cannot go back, beams, devices without float64. Processors
that take tokens back are told that they may not (`Context.backtracks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field

import genmode

from .chain import Chain

WIDTH = 64
"""So many tokens of the finished text are handed over in one forward."""


class PowerSampling(genmode.Strategy):
    """Samples whole texts from p(x)^alpha by Markov chains, one for each row.

    Any batch size and `num_return_sequences`; under `seed=` a row's text does not depend on the batch. Without a seed
    torch's generator is drawn from, as many numbers as the batch needs.
    """

    contract_version = 1
    name = "power_sampling"
    paper = "Karan and Du 2025, Reasoning with Sampling, https://arxiv.org/abs/2510.14901"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK, genmode.Need.LEVEL})
    skip_checks: ClassVar[Mapping[str, str]] = {
        "cost_against_greedy": "a text is written many times over: moves are what the method spends",
    }

    class Params(genmode.Params):
        """Parameters of `power_sampling`; each is a key of the generation config."""

        power_alpha: float = Field(4.0, gt=0, le=1000, description="the power; 1 is the model itself, more is sharper")
        power_block: int = Field(192, ge=1, description="tokens that are added before moves are made", examples=[5])
        power_moves: int = Field(10, ge=0, description="moves behind each block; 0 for none", examples=[2])
        power_proposal_temperature: float | None = Field(
            None, gt=0, le=1000, description="temperature of what moves propose; 1 / power_alpha if not given"
        )
        power_stop: bool = Field(
            False,
            description="whether a row that has ended behind the moves of a block is done, as in the authors' program; "
            "much faster, but longer texts then count for less than their power",
        )

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        """Refuse what cannot end a chain."""
        if call.get("max_time") is not None:
            raise genmode.ParameterError(
                f"max_time={call['max_time']} cannot be kept by power_sampling, which has no text before its last "
                "move; leave it out and lower power_moves or max_new_tokens, or cancel the call"
            )

    def decode(self, session: genmode.Session, params: Any) -> None:
        """Run the chains to their end, then hand their texts over."""
        chain = Chain(
            session, params.power_alpha, params.power_proposal_temperature or 1 / params.power_alpha,
            params.power_block, params.power_moves, params.power_stop,
        )  # fmt: skip
        at = ahead = 0
        for step in session.steps():
            if step.index == 0:
                chain.run()
                step.commit(chain.tokens[:, 0])
                at = 1
            else:
                at = min(at, chain.end - 1)  # a device says one step late that all rows are done
                drafted = 0 if step.draft is None else step.draft.shape[1]
                taken = min(drafted, ahead) + 1  # a device fills drafts up
                columns = torch.arange(at, at + drafted + 1, device=session.device).clamp(max=chain.room - 1)
                step.commit(chain.tokens.index_select(1, columns), counts=(chain.lengths - at).clamp(1, taken))
                at += taken
            ahead = min(WIDTH, chain.end - 1 - at)
            if ahead > 0:
                session.draft(chain.tokens[:, at : at + ahead])
