"""What the beam strategies share: hypotheses that are done, and when no open one can beat them.

Scores follow transformers: a hypothesis of n decoded tokens and summed log-probability s is worth
s / n^length_penalty. Of each input's candidates, those that end are offered to the finished hypotheses, the
best others go on. Masked scores are large negative numbers (-1e9), not minus infinity, so that they add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.selection import softmax

MASKED = -1.0e9


class BeamParams(genmode.Params):
    """Parameters of beam search."""

    num_beams: int = Field(4, ge=2, description="hypotheses kept open for each input")
    length_penalty: float = Field(
        1.0, allow_inf_nan=False, description="exponent of the length by which scores are divided"
    )
    early_stopping: bool | str = Field(
        False, description="True: stop at num_beams results; False: when improvement is unlikely; 'never': impossible"
    )
    num_return_sequences: int = Field(1, ge=1, description="results for each input")


class Finished:
    """The best finished hypotheses of each input.

    Attributes:
        scores: `[inputs, beams]`, float32, descending; -1e9 where there is none yet.
        trace: `[inputs, beams, decoded]`, int32: the row that each token was chosen in; None if not kept.
        closed: `[inputs, 1]`, bool: whether no open hypothesis may win any more.
    """

    def __init__(self, session: genmode.Session, params: Any) -> None:
        inputs, beams, device, longest = session.inputs, params.num_beams, session.device, session.max_length
        self.session, self.params, self.fill = session, params, _fill(session)
        session.history.reserve(longest + 1)
        # The last column holds the length before the last token, so that tokens and length are picked as one; what
        # lies behind a length is undefined.
        self.records = torch.full((inputs, beams, longest + 1), self.fill, device=device)
        self.records[:, :, : session.prompt_length] = session.history.ids.view(inputs, beams, -1)
        self.records[:, :, -1] = session.prompt_length - 1
        self.scores = torch.full((inputs, beams), MASKED, device=device)
        self.closed = torch.zeros(inputs, 1, dtype=torch.bool, device=device)
        self.touched = False
        self.length = torch.full((1,), session.prompt_length, device=device)
        self.divisors = divisors_of(session, params.length_penalty)
        self.behind: Tensor | None = None
        self.trace: Tensor | None = None
        if session.generation_config.return_dict_in_generate:
            size = longest - session.prompt_length
            self.trace = torch.full((inputs, beams, size), -1, dtype=torch.int32, device=device)

    @property
    def sequences(self) -> Tensor:
        """`[inputs, beams, max_length]`, long."""
        columns = torch.arange(self.records.shape[2] - 1, device=self.records.device)
        return self.records[:, :, :-1].where(columns <= self.records[:, :, -1:], self.fill)

    @property
    def lengths(self) -> Tensor:
        """`[inputs, beams]`, long: decoded tokens."""
        return self.records[:, :, -1] + (1 - self.session.prompt_length)

    @property
    def done(self) -> Tensor:
        """`[inputs, beams]`, bool: which places are taken."""
        return self.scores > MASKED / 2

    def judge(
        self, ended: Tensor, sums: Tensor, rows: Tensor, tokens: Tensor, trace: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Take in the best of the candidates that end, let the best others go on.

        Args:
            ended: `[inputs, n]`, bool: which candidates end.
            sums: `[inputs, n]`, float32: summed log-probabilities, the candidates to be taken in first.
            rows, tokens: `[inputs, n]`, long: each continues a row of the session by a token.
            trace: `[rows, decoded]`, int32: the rows in which each row's tokens were chosen.

        Returns:
            Of the hypotheses that stay open, `[inputs, beams]` each: summed log-probabilities, the rows that they
            continue, and their tokens; and one bool, true when none can win any more, or None for false.
        """
        session, params = self.session, self.params
        if not self.touched and session.surely_none(ended):
            running, rows, tokens = _go_on(ended, sums, rows, tokens, self.scores.shape[1])
            self.length = self.length + 1
            return running, rows, tokens, None
        self.touched = True
        result: Any = session.replay(
            _judged, self.records, self.scores, self.closed, self.trace, self.length,
            ended, ended <= self._behind(ended), sums, rows, tokens, trace, session.history.tokens, self.divisors,
            session.prompt_length, params.early_stopping, params.length_penalty > 0.0,
        )  # fmt: skip
        self.records, self.scores, self.closed, self.trace, self.length = result[:5]
        return result[5], result[6], result[7], result[8]

    def _behind(self, ended: Tensor) -> Tensor:
        """Which candidates come behind the first `num_beams`: `[n]`, bool."""
        if self.behind is None:
            self.behind = torch.arange(ended.shape[1], device=ended.device) >= self.scores.shape[1]
        return self.behind

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
            open_ids = torch.full_like(self.records, self.fill)
            open_ids[:, :, :length] = session.history.ids.view(inputs, beams, length)
            open_ids[:, :, -1] = length - 1
            self.records = pick(self.records, open_ids, best)
            self.scores = pick(self.scores, worth, best)
            if self.trace is not None and trace is not None:
                open_trace = torch.full_like(self.trace, -1)
                open_trace[:, :, : length - prompt] = trace[:, : length - prompt].view(inputs, beams, -1)
                self.trace = pick(self.trace, open_trace, best)
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


def _go_on(ended: Tensor, sums: Tensor, rows: Tensor, tokens: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best `beams` candidates that do not end: sums, rows and tokens, `[inputs, beams]` each."""
    # among equals another order than the candidates have
    running, best = torch.add(sums, ended, alpha=MASKED).topk(beams)
    return running, rows.gather(1, best), tokens.gather(1, best)


def _judged(
    records: Tensor, scores: Tensor, closed: Tensor, trace: Tensor | None, length: Tensor,
    ended: Tensor, unfit: Tensor, sums: Tensor, rows: Tensor, tokens: Tensor, open_trace: Tensor | None,
    history: Tensor, divisors: Tensor, prompt: int, early: bool | str, rewarded: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """One step of `Finished`: what it holds afterwards, the length, and what `judge` returns.

    All candidates are ranked as transformers ranks them, so that equal scores end up in its order.
    """
    inputs, beams = scores.shape
    parents = rows[:, :beams].flatten()
    divisor = divisors.index_select(0, length)
    worth = worth_of(sums, divisor)
    if early is True:
        worth = torch.add(worth, (scores > MASKED / 2).all(-1, keepdim=True), alpha=MASKED)
    worth = torch.add(torch.add(worth, closed, alpha=MASKED), unfit, alpha=MASKED)
    scores, best = torch.cat([scores, worth], 1).topk(beams)  # [inputs, beams]
    scores, best = scores.clamp(min=MASKED), best.clamp(max=2 * beams - 1)  # what is behind is masked
    candidates = history[:, : records.shape[2]].index_select(0, parents).view(records.shape)
    candidates.scatter_(2, length.expand(inputs, beams, 1), tokens[:, :beams, None])
    candidates[:, :, -1] = length
    records = pick(records, candidates, best)
    if trace is not None and open_trace is not None:
        traces = open_trace.index_select(0, parents).view(trace.shape)
        chosen = parents.view(inputs, beams, 1).to(torch.int32)
        trace = pick(trace, traces.scatter(2, (length - prompt).expand(chosen.shape), chosen), best)
    running, rows, tokens = _go_on(ended, sums, rows, tokens, beams)
    done = scores > MASKED / 2
    worst = scores.amin(1, keepdim=True).where(done, MASKED)
    # the best that an open hypothesis can be worth: at its present length, or at the greatest one
    reachable = worth_of(running[:, :1], divisors[-1:] if early == "never" and rewarded else divisor)
    closed = closed >= (reachable > worst).any(-1, keepdim=True)  # closed, or not any
    over = closed.all() | ended.all()
    if early is True:
        over = over | done.all()
    return records, scores, closed, trace, length + 1, running, rows, tokens, over


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


def divisors_of(session: genmode.Session, penalty: float) -> Tensor:
    """By the length before the last token, what `worth_of` takes: `[max_length]`, float32."""
    decoded = torch.arange(1, session.max_length + 1, device=session.device) - session.prompt_length
    divisors = (decoded.clamp(min=1).double() ** penalty).float()
    return divisors.reciprocal() if divisors.is_cuda else divisors


def worth_of(sums: Tensor, divisor: Tensor) -> Tensor:
    """sums / decoded^penalty, rounded as torch does it for a number `decoded`: on CUDA by the reciprocal."""
    return sums * divisor if sums.is_cuda else sums / divisor


def _fill(session: genmode.Session) -> int:
    """The id behind the end of a hypothesis, as transformers chooses it."""
    if not session.eos_token_ids:
        return -1
    return session.pad_token_id or session.eos_token_ids[0]


def pick(old: Tensor, new: Tensor, best: Tensor) -> Tensor:
    """`[inputs, beams, ...]` picked by `best` `[inputs, beams]` from both, one behind the other."""
    merged = torch.cat([old, new.to(old.dtype)], 1)
    return merged.gather(1, best.view(*best.shape, *[1] * (merged.dim() - 2)).expand(*best.shape, *merged.shape[2:]))


class Trace:
    """In which row each token of each row was chosen: `rows` is `[rows, decoded]`, int32, -1 where there is none yet."""

    def __init__(self, session: genmode.Session) -> None:
        self.session = session
        size = session.max_length - session.prompt_length
        self.rows = torch.full((session.rows, size), -1, dtype=torch.int32, device=session.device)

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there."""
        self.rows = self.rows.index_select(0, rows)
        self.rows[:, self.session.history.ids.shape[1] - self.session.prompt_length - 1] = rows.to(torch.int32)
