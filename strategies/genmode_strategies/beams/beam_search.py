"""Beam search: the best sequences of tokens rather than the best token.

Each input keeps `num_beams` open hypotheses. A step scores every continuation of each,

    s(y_<t, v) = s(y_<t) + log p(v | y_<t)        (processors act on log p)

and keeps the best that do not end; those that end among the best `num_beams` are finished hypotheses,
worth s / length^length_penalty. With sampling, candidates are drawn without replacement with weights
softmax(s) instead of taken from the top (beam sample).

On ties torch.topk decides, as in transformers. Streaming sends the prefix on which all hypotheses agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.sampling import softmax, topk

from .continuations import MASKED, Candidates
from .finished import Finished


class BeamParams(genmode.Params):
    """Parameters of beam search."""

    num_beams: int = Field(4, ge=2, description="hypotheses kept open for each input")
    # within these, the power of no length that fits into memory overflows
    length_penalty: float = Field(1.0, ge=-32, le=32, description="exponent of the length by which scores are divided")
    early_stopping: bool | str = Field(
        False, description="True: stop at num_beams results; False: when improvement is unlikely; 'never': impossible"
    )
    num_return_sequences: int = Field(1, ge=1, description="results for each input")


class BeamSearch(genmode.Strategy):
    """The best of `num_beams` hypotheses. Shapes: rows are `[inputs * num_beams]`, beams of an input together."""

    contract_version = 1
    paper = "Graves 2012, Sequence Transduction with Recurrent Neural Networks, section 2.5"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": False, "num_beams": 4}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.REORDER})
    Params = BeamParams

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        if params.num_return_sequences > params.num_beams:
            raise genmode.ParameterError(
                f"num_return_sequences={params.num_return_sequences} is more than num_beams={params.num_beams}; "
                "ask for fewer results or keep more beams"
            )
        if params.early_stopping not in (True, False, "never"):
            raise genmode.ParameterError(f"early_stopping={params.early_stopping!r}: give True, False or 'never'")

    def decode(self, session: genmode.Session, params: Any) -> None:
        inputs, beams = session.num_inputs, params.num_beams
        keep = max(2, 1 + len(session.eos_token_ids)) * beams
        running = torch.full((inputs, beams), MASKED, device=session.device)
        running[:, 0] = 0.0  # all beams of an input start equal, so only the first may continue
        finished = Finished(session, params)
        for step in session.steps(ending=False):
            sums, rows, tokens = self.candidates(session, step.log_scores, running, keep)  # [inputs, keep]
            ends = session.done_after(rows.view(-1), tokens.view(-1)).view(inputs, keep)
            running, rows, tokens, over = finished.judge(Candidates(sums, rows, tokens, ends))
            step.commit(tokens.flatten(), rows=rows.flatten())
            finished.follow(rows.flatten())
            if over is not None:
                session.stop_when(over)
            session.settle(finished.settled)
        finished.finish(running.flatten())

    def candidates(
        self, session: genmode.Session, log_scores: Tensor, running: Tensor, keep: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The `keep` continuations to look at: their sums, rows and tokens, `[inputs, keep]` each.

        Args:
            log_scores: `[rows, vocab]`, float32.
            running: `[inputs, beams]`, float32: the sum of each open hypothesis.
        """
        found: tuple[Tensor, Tensor, Tensor] = session.replay(_highest, log_scores, running, keep)
        return found


class BeamSample(BeamSearch):
    """Beam search whose candidates are drawn, not taken from the top; shapes as there."""

    contract_version = 1
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 4}

    def candidates(
        self, session: genmode.Session, log_scores: Tensor, running: Tensor, keep: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        multinomial = session.replay.multinomial
        if multinomial is None:
            return _drawn(log_scores, running, keep, session.multinomial)
        found: tuple[Tensor, Tensor, Tensor] = session.replay(_drawn, log_scores, running, keep, multinomial)
        return found


def drawn(
    scores: Tensor, keep: int, running: Tensor, multinomial: Callable[[Tensor, int], Tensor]
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`keep` continuations of each input, drawn without replacement with weights softmax(score).

    Args:
        scores: `[inputs, beams * vocab]`, float32: of the next token.
        running: `[inputs, beams]`, float32: what is added for each open hypothesis.
        multinomial: see `genmode.Session.multinomial`.

    Returns:
        Sums, float32, and places in `scores`, long, `[inputs, keep]` each, in the order of the draw.
    """
    index = multinomial(softmax(scores, running), keep)
    return scores.gather(1, index) + running.gather(1, index // (scores.shape[1] // running.shape[1])), index


def _drawn(
    log_scores: Tensor, running: Tensor, keep: int, multinomial: Callable[[Tensor, int], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    sums, index = drawn(log_scores.view(len(running), -1), keep, running, multinomial)
    return (sums, *_places(index, running, log_scores.shape[1]))


def _highest(log_scores: Tensor, running: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    found, index = topk(log_scores.view(len(running), -1), keep, running)
    return (found, *_places(index, running, log_scores.shape[-1]))


def _places(index: Tensor, running: Tensor, vocab: int) -> tuple[Tensor, Tensor]:
    """The session's row and the token of each place among the continuations of an input, `[inputs, keep]` each."""
    inputs, beams = running.shape
    offset = torch.arange(inputs, device=index.device)[:, None] * beams
    return index // vocab + offset, index % vocab
