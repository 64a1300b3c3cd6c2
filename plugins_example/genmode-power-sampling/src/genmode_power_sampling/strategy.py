"""PowerSampling: draws a whole text from a power of the model's distribution.

Karan and Du 2025, "Reasoning with Sampling: Your Base Model is Smarter Than You Think", algorithm 1. With p(x) the
product of the probabilities of a text's tokens, the target is

    pi(x) = p(x)^alpha / sum over all texts y of p(y)^alpha

which is not sampling at temperature 1 / alpha: that sharpens each token by itself, this one prefers tokens that lead to
probable texts. A text is built up in blocks: each adds `power_block` tokens and is followed by `power_moves` moves of
Metropolis and Hastings over all that is decoded so far; see `chain`.

What p is: softmax of the scores after all processors of the call, each token with the history before it. So a ban is a
zero of p, a penalty or `temperature` changes p, and `top_k` (50 in transformers unless it is set to 0) cuts p; then
comes the power. A text ends where the call ends a row: with an end-of-sequence token, by a criterion, or at the longest
length. The clock does not end it: `max_time` is refused.

Rows begin again behind the tokens that they keep (`Session.restart`). Nothing is final before the chain ends, so a stream
gets the text at the end. Not supported: models whose state cannot go back, beams, devices without float64, processors
that take tokens back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field

import genmode

from .chain import Chain


class PowerSampling(genmode.Strategy):
    """Samples whole texts from p(x)^alpha by Markov chains, one for each row.

    Any batch size and `num_return_sequences`; under `seed=` a row's text does not depend on the batch. Without a seed
    torch's generator is drawn from, as many numbers as the batch needs.
    """

    contract_version = 1
    name = "power_sampling"
    paper = "Karan and Du 2025, Reasoning with Sampling, https://arxiv.org/abs/2510.14901"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK, genmode.Need.POPULATION})
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
        """Block after block, each with its moves, until the longest length is reached."""
        chain = Chain(session, params.power_alpha, params.power_proposal_temperature or 1 / params.power_alpha)
        fixed = torch.zeros(session.rows, dtype=torch.bool, device=session.device)
        for end in range(params.power_block, chain.room + params.power_block, params.power_block):
            chain.extend(min(end, chain.room))
            for _ in range(params.power_moves):
                chain.move(fixed)
            if params.power_stop:
                fixed = chain.texts.ended
                if bool(fixed.all()):
                    break
        chain.restore()
