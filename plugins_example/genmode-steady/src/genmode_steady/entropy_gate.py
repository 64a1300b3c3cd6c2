"""Entropy gate: greedy where the model is sure, sampling where it is not.

With p the model's distribution of the next token before any processor and H = -Σ p ln p its entropy in
nats, a row continues with argmax(scores) if H <= gate_entropy, else with a draw of softmax(scores).

Ties of the argmax are broken as `torch.argmax` breaks them. One random number is drawn in every step,
gate open or not, so a row's result does not depend on how often the others are sure. Beams and drafting
are not supported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

import genmode
from genmode.sampling import softmax, sums

if TYPE_CHECKING:
    from collections.abc import Mapping


class EntropyGate(genmode.Strategy):
    """Greedy in rows whose entropy is at most `gate_entropy`, sampling in the others."""

    contract_version = 1
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True}

    class Params(genmode.Params):
        """Parameters of `entropy_gate`."""

        gate_entropy: float = Field(1.0, ge=0, description="entropy in nats up to which a row is decoded greedily")

    def decode(self, session: genmode.Session, params: Any) -> None:
        """Decode until all rows are done."""
        for step in session.steps():
            sure = session.replay(entropy, step.logits) <= params.gate_entropy  # [rows]
            step.commit(torch.where(sure, step.best(), step.sample()))


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of softmax(logits): `[rows]`, from `[rows, vocab]`."""
    return sums(torch.special.entr(softmax(logits)))
