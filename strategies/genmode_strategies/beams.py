"""What the beam strategies share: hypotheses that are done, and when no open one can beat them.

Scores follow transformers: a hypothesis of n decoded tokens and summed log-probability s is worth
s / n^length_penalty. Of each input's candidates, those that end are offered to the finished hypotheses, the
best others go on. Masked scores are large negative numbers (-1e9), not minus infinity, so that they add up.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

MASKED = -1.0e9


class BeamParams(genmode.Params):
    """Parameters of beam search."""

    num_beams: int = Field(4, ge=2, description="hypotheses kept open for each input")
    length_penalty: float = Field(1.0, description="exponent of the length by which scores are divided")
    early_stopping: bool | str = Field(
        False, description="True: stop at num_beams results; False: when improvement is unlikely; 'never': impossible"
    )
    num_return_sequences: int = Field(1, ge=1, description="results for each input")


class Finished:
    """The best finished hypotheses of each input.

    Attributes:
        scores: `[inputs, beams]`, float32, descending; -1e9 where there is none yet.
        trace: `[inputs, beams, decoded]`, int32: the row that each token was chosen in; None if not kept.
        open: `[inputs, 1]`, bool: whether an open hypothesis may still win.
    """

    def __init__(self, session: genmode.Session, params: Any) -> None:
        inputs, beams, device = session.inputs, params.num_beams, session.device
        self.session, self.params, self.beams = session, params, beams
        fill = _fill(session)
        # The last column holds how many tokens were decoded, so that sequence and length are picked as one.
        self.records = torch.full((inputs, beams, session.max_length + 1), fill, device=device)
        self.records[:, :, : session.prompt_length] = session.history.ids.view(inputs, beams, -1)
        self.records[:, :, -1] = 0
        self.scores = torch.full((inputs, beams), MASKED, device=device)
        self.open = torch.ones(inputs, 1, dtype=torch.bool, device=device)
        self.touched = False
        self.places = torch.arange(beams, device=device)
        self.trace: Tensor | None = None
        if session.generation_config.return_dict_in_generate:
            size = session.max_length - session.prompt_length
            self.trace = torch.full((inputs, beams, size), -1, dtype=torch.int32, device=device)

    @property
    def sequences(self) -> Tensor:
        """`[inputs, beams, max_length]`, long."""
        return self.records[:, :, :-1]

    @property
    def lengths(self) -> Tensor:
        """`[inputs, beams]`, long: decoded tokens."""
        return self.records[:, :, -1]

    @property
    def done(self) -> Tensor:
        """`[inputs, beams]`, bool: which places are taken."""
        return self.scores > MASKED / 2

    def offer(self, ended: Tensor, scores: Tensor, rows: Tensor, tokens: Tensor, trace: Tensor | None) -> None:
        """Take in those of the best `beams` candidates that `ended`, if they beat what is there.

        All candidates are ranked as transformers ranks them, so that equal scores end up in its order.

        Args:
            ended: `[inputs, n]`, bool.
            scores: `[inputs, n]`, float32: summed log-probabilities, the candidates to be taken in first.
            rows, tokens: `[inputs, n]`, long: each continues a row of the session by a token.
            trace: `[rows, decoded]`, int32: the rows in which each row's tokens were chosen.
        """
        none = self.session.surely_none(ended[:, : self.beams])
        if none and not self.touched:
            return
        self.touched = True
        inputs, count = ended.shape[0], self.beams
        history, prompt = self.session.history.ids, self.session.prompt_length
        length = history.shape[1]
        worth = scores / ((length + 1 - prompt) ** self.params.length_penalty)
        if self.params.early_stopping is True:
            worth = worth + self.done.all(-1, keepdim=True) * MASKED
        worth = worth + ~self.open * MASKED
        first = torch.arange(ended.shape[1], device=ended.device) < count
        worth = worth + ~(ended & first) * MASKED
        ranked, best = torch.cat([self.scores, worth], 1).topk(self.beams)  # [inputs, beams]
        if none and bool(((best == self.places) | ~self.done).all()):
            return
        self.scores, best = ranked.clamp(min=MASKED), best.clamp(max=2 * count - 1)  # what is behind is masked
        rows, tokens = rows[:, :count], tokens[:, :count]
        candidates = self.records.new_full((inputs, count, self.records.shape[2]), _fill(self.session))
        candidates[:, :, :length] = history[rows]
        candidates[:, :, length] = tokens
        candidates[:, :, -1] = length + 1 - prompt
        self.records = _pick(self.records, candidates, best)
        if self.trace is not None and trace is not None:
            traces = self.trace.new_full((inputs, count, self.trace.shape[2]), -1)
            traces[:, :, : length - prompt] = trace[rows][:, :, : length - prompt]
            traces[:, :, length - prompt] = rows.to(torch.int32)
            self.trace = _pick(self.trace, traces, best)

    def close(self, best_open: Tensor, length: int) -> Tensor:
        """Update which inputs are open; returns one bool, true when none is.

        Args:
            best_open: `[inputs, 1]`, float32: summed log-probability of the best open hypothesis.
            length: tokens of the open hypotheses, prompt included.
        """
        reach = self.session.max_length if self._patient else length
        worst = self.scores.amin(1, keepdim=True).where(self.done, MASKED)
        possible = (best_open / ((reach - self.session.prompt_length) ** self.params.length_penalty) > worst).any(-1)
        self.open = self.open & possible[:, None]
        over = ~self.open.any()
        return over | self.done.all() if self.params.early_stopping is True else over

    @property
    def _patient(self) -> bool:
        return bool(self.params.early_stopping == "never" and self.params.length_penalty > 0.0)

    def finish(self, running: Tensor, trace: Tensor | None) -> None:
        """State the result, best first; open hypotheses stand in where the loop ended early.

        Args:
            running: `[rows]`, float32: summed log-probabilities of the open hypotheses.
            trace: as in `offer`.
        """
        session, count = self.session, self.params.num_return_sequences
        inputs, beams = self.scores.shape
        length, prompt = session.history.ids.shape[1], session.prompt_length
        if not session.surely_none(~self.done[:, :count]) and length > prompt:
            worth = running.view(inputs, beams) / ((length - prompt) ** self.params.length_penalty)
            # Any finished hypothesis comes before any open one; float64 keeps the order beside the large numbers.
            finished = self.scores.double().where(self.done, 2 * MASKED)
            best = torch.cat([finished, worth.double() + MASKED], 1).topk(beams).indices
            open_ids = torch.full_like(self.records, _fill(session))
            open_ids[:, :, :length] = session.history.ids.view(inputs, beams, length)
            open_ids[:, :, -1] = length - prompt
            self.records = _pick(self.records, open_ids, best)
            self.scores = _pick(self.scores, worth, best)
            if self.trace is not None and trace is not None:
                open_trace = torch.full_like(self.trace, -1)
                open_trace[:, :, : length - prompt] = trace[:, : length - prompt].view(inputs, beams, -1)
                self.trace = _pick(self.trace, open_trace, best)
        decoded = int(self.lengths[:, :count].max())
        session.finish(
            self.sequences[:, :count, : prompt + decoded].flatten(0, 1),
            scores=self.scores[:, :count].flatten(),
            beam_indices=None if self.trace is None else self.trace[:, :count, :decoded].flatten(0, 1),
        )

    def settled(self, running: Tensor) -> int:
        """How many leading tokens no open or finished hypothesis of any input disputes; reads the device.

        Args:
            running: `[inputs, beams, length]`, long: the open hypotheses.
        """
        first = running[:, :1]
        same = (running == first).all(1)
        held = self.sequences[:, :, : running.shape[2]]
        same = same & ((held == first) | ~self.done[:, :, None]).all(1)
        return int(same.long().cumprod(1).sum(1).min())


def _fill(session: genmode.Session) -> int:
    """The id behind the end of a hypothesis, as transformers chooses it."""
    if not session.eos_token_ids:
        return -1
    return session.pad_token_id or session.eos_token_ids[0]


def _pick(old: Tensor, new: Tensor, best: Tensor) -> Tensor:
    """`[inputs, beams, ...]` picked by `best` `[inputs, beams]` from both, one behind the other."""
    merged = torch.cat([old, new.to(old.dtype)], 1)
    return merged.gather(1, best.view(*best.shape, *[1] * (merged.dim() - 2)).expand(*best.shape, *merged.shape[2:]))
