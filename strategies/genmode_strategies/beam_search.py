"""Beam search: the best sequences of tokens rather than the best token.

Each input keeps `num_beams` open hypotheses. A step scores every continuation of each,

    s(y_<t, v) = s(y_<t) + log p(v | y_<t)        (processors act on log p)

and keeps the best that do not end; those that end among the best `num_beams` are finished hypotheses,
worth s / length^length_penalty. With sampling, candidates are drawn without replacement with weights
softmax(s) instead of taken from the top (beam sample).

On ties torch.topk decides, as in transformers. Streaming sends the prefix on which all hypotheses agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

import genmode

from .beams import MASKED, BeamParams, Finished


class BeamSearch(genmode.Strategy):
    """The best of `num_beams` hypotheses. Shapes: rows are `[inputs * num_beams]`, beams of an input together."""

    contract_version = 1
    paper = "Graves 2012, Sequence Transduction with Recurrent Neural Networks, section 2.5"
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": False, "num_beams": 4}
    needs: ClassVar[frozenset[str]] = frozenset({"reorder"})
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
        inputs, beams = session.inputs, params.num_beams
        keep = max(2, 1 + len(session.eos_token_ids)) * beams
        offset = torch.arange(inputs, device=session.device)[:, None] * beams
        running = torch.full((inputs, beams), MASKED, device=session.device)
        running[:, 0] = 0.0  # all beams of an input start equal, so only the first may continue
        finished = Finished(session, params)
        trace = _Trace(session) if finished.trace is not None else None
        for step in session.steps(ending=False):
            scores = (step.log_scores.view(inputs, beams, -1) + running[:, :, None]).flatten(1)
            found, index = self.candidates(session, scores, keep)  # [inputs, keep]
            rows, tokens = index // session.vocab_size + offset, index % session.vocab_size
            ends = session.done_after(rows.view(-1), tokens.view(-1)).view(inputs, keep)
            finished.offer(ends, found, rows, tokens, trace.rows if trace else None)
            running, best = (found + ends * MASKED).topk(beams)  # among equals another order than `candidates` has
            rows, tokens = rows.gather(1, best), tokens.gather(1, best)
            step.commit(tokens.flatten(), rows=rows.flatten())
            if trace:
                trace.follow(rows.flatten())
            over = ends.all()
            if finished.touched or not session.surely_none(over):
                session.stop_when(finished.close(running[:, :1], session.history.ids.shape[1]) | over)
            if session.streams:
                open_ids = session.history.ids.view(inputs, beams, -1)
                session.settle(open_ids[:, 0], finished.settled(open_ids))
        finished.finish(running.flatten(), trace.rows if trace else None)

    def candidates(self, session: genmode.Session, scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """The `keep` continuations to look at: their scores and places in `scores`, `[inputs, keep]` each.

        Args:
            scores: `[inputs, beams * vocab]`, float32.
        """
        found, index = scores.topk(keep)
        return found, index


class BeamSample(BeamSearch):
    """Beam search whose candidates are drawn, not taken from the top; shapes as there."""

    contract_version = 1
    flags: ClassVar[Mapping[str, Any]] = {"do_sample": True, "num_beams": 4}

    def candidates(self, session: genmode.Session, scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        index = session.multinomial(scores.softmax(-1), keep)
        return scores.gather(1, index), index


class _Trace:
    """In which row each token of each row was chosen: `rows` is `[rows, decoded]`, int32."""

    def __init__(self, session: genmode.Session) -> None:
        self.session = session
        size = session.max_length - session.prompt_length
        self.rows = torch.full((session.rows, size), -1, dtype=torch.int32, device=session.device)

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there."""
        self.rows = self.rows.index_select(0, rows)
        self.rows[:, self.session.history.ids.shape[1] - self.session.prompt_length - 1] = rows.to(torch.int32)
