"""Finished hypotheses as transformers 5 keeps them, for beam search.

Scores follow transformers: a hypothesis of n decoded tokens and summed log-probability s is worth
s / n^length_penalty. Of each input's candidates, those that end are taken in among the finished hypotheses, the
best others stay open.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.sampling import by_number

from .continuations import (
    MASKED,
    Candidates,
    Open,
    ParentRows,
    Rules,
    continued,
    divisors_of,
    pick,
    rules_of,
    undisputed,
)


class Held(NamedTuple):
    """The best finished hypotheses of each input.

    Attributes:
        records: `[inputs, beams, max_length + 1]`, long: their tokens. The last column holds the length before the last
            token, so that tokens and length are picked as one; what lies behind a length is undefined.
        scores: `[inputs, beams]`, float32, descending; -1e9 where there is none yet.
        closed: `[inputs, 1]`, bool: whether no open hypothesis may win any more.
        parent_rows: `[inputs, beams, decoded]`, int32: the row that each token was chosen in; None if not kept.
    """

    records: Tensor
    scores: Tensor
    closed: Tensor
    parent_rows: Tensor | None


class Finished:
    """Takes in the hypotheses that end; tells which stay open.

    Attributes:
        held: the best finished hypotheses.
        touched: whether a candidate may have ended.
    """

    def __init__(self, session: genmode.Session, params: Any) -> None:
        inputs, beams, device, longest = session.num_inputs, params.num_beams, session.device, session.max_length
        self.session, self.params, self.fill = session, params, _fill(session)
        self.rules, self.divisors = rules_of(session, params), divisors_of(session, params.length_penalty)
        records = torch.full((inputs, beams, longest + 1), self.fill, device=device)
        records[:, :, : session.prompt_length] = session.history.tokens.view(inputs, beams, -1)
        records[:, :, -1] = session.prompt_length - 1
        parent_rows, self.parents = None, None
        if session.generation_config.return_dict_in_generate:
            size = longest - session.prompt_length
            parent_rows = torch.full((inputs, beams, size), -1, dtype=torch.int32, device=device)
            self.parents = ParentRows(session)
        scores = torch.full((inputs, beams), MASKED, device=device)
        self.held = Held(records, scores, torch.zeros(inputs, 1, dtype=torch.bool, device=device), parent_rows)
        self.touched = False
        self.length = torch.full((1,), session.prompt_length, device=device)
        self._behind: Tensor | None = None

    @property
    def sequences(self) -> Tensor:
        """`[inputs, beams, max_length]`, long."""
        records = self.held.records
        columns = torch.arange(records.shape[2] - 1, device=records.device)
        return records[:, :, :-1].where(columns <= records[:, :, -1:], self.fill)

    @property
    def lengths(self) -> Tensor:
        """`[inputs, beams]`, long: decoded tokens."""
        return self.held.records[:, :, -1] + (1 - self.session.prompt_length)

    @property
    def done(self) -> Tensor:
        """`[inputs, beams]`, bool: which places are taken."""
        return self.held.scores > MASKED / 2

    def judge(self, candidates: Candidates) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Take in the best of the candidates that end, let the best others go on.

        Args:
            candidates: of each input, those to be taken in first.

        Returns:
            Of the hypotheses that stay open, `[inputs, beams]` each: summed log-probabilities, the rows that they
            continue, and their tokens; and one bool, true when none can win any more, or None for false.
        """
        session = self.session
        if not self.touched and host_sync.surely_none(candidates.ends):
            self.length = self.length + 1
            return *_go_on(candidates, self.params.num_beams), None
        self.touched = True
        if self._behind is None:  # which candidates come behind the first `num_beams`: `[n]`, bool
            places = torch.arange(candidates.ends.shape[1], device=session.device)
            self._behind = places >= self.params.num_beams
        parent_rows = None if self.parents is None else self.parents.rows
        opened = Open(session.replay.buffer(session.max_length + 1), parent_rows, self.length, self.divisors)
        result: Any = session.replay(_judged, self.rules, self._behind, *self.held, *candidates, *opened)
        self.held, self.length = Held(*result[:4]), result[4]
        return result[5], result[6], result[7], result[8]

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there; `rows` is `[rows]`, long."""
        if self.parents is not None:
            self.parents.follow(rows)

    def settled(self) -> tuple[Tensor, int]:
        """For `Session.settle`: the first open hypothesis of each input, and how much of it is final."""
        running = self.session.history.tokens.view(*self.held.scores.shape, -1)
        return running[:, 0], undisputed(running, self.sequences, self.done)

    def finish(self, running: Tensor) -> None:
        """State the result, best first; open hypotheses stand in where the loop ended early.

        Args:
            running: `[rows]`, float32: summed log-probabilities of the open hypotheses.
        """
        session, count = self.session, self.params.num_return_sequences
        tokens, prompt = session.history.tokens, session.prompt_length
        if not host_sync.surely_none(~self.done[:, :count]) and tokens.shape[1] > prompt:
            self._take_in_open(tokens, running)
        decoded = int(self.lengths[:, :count].max())
        parent_rows = self.held.parent_rows
        session.finish(
            self.sequences[:, :count, : prompt + decoded].flatten(0, 1),
            scores=self.held.scores[:, :count].flatten(),
            beam_indices=None if parent_rows is None else parent_rows[:, :count, :decoded].flatten(0, 1),
        )

    def _take_in_open(self, tokens: Tensor, running: Tensor) -> None:
        """Put the open hypotheses, `tokens` `[rows, length]` worth `running` `[rows]`, behind the finished ones.

        Where fewer candidates were left than beams, a beam continues one that never began, or takes a masked token. Its
        place stays empty, as in transformers; if all of an input do, they are worth minus infinity, which is an error.
        """
        held, (inputs, beams) = self.held, self.held.scores.shape
        length, decoded = tokens.shape[1], tokens.shape[1] - self.session.prompt_length
        running = running.view(inputs, beams)
        begun, worth = running > MASKED / 2, running / (decoded**self.params.length_penalty)
        # Finished hypotheses come before open ones, and these before empty places; float64 keeps the order beside the
        # large numbers.
        finished = torch.add(held.scores.double(), ~self.done, alpha=4 * MASKED)
        opened = (worth.double() + MASKED).clamp(min=3 * MASKED).masked_fill(~begun, -torch.inf)
        best = torch.cat([finished, opened], 1).sort(dim=1, descending=True, stable=True).indices[:, :beams]
        scores = pick(held.scores, worth, best).masked_fill(~(self.done | begun).any(1, keepdim=True), -torch.inf)
        records = torch.full_like(held.records, self.fill)
        records[:, :, :length] = tokens.view(inputs, beams, length)
        records[:, :, -1] = length - 1
        parent_rows = held.parent_rows
        if parent_rows is not None and self.parents is not None:
            behind = torch.full_like(parent_rows, -1)
            behind[:, :, :decoded] = self.parents.rows[:, :decoded].view(inputs, beams, -1)
            parent_rows = pick(parent_rows, behind, best)
        self.held = held._replace(records=pick(held.records, records, best), scores=scores, parent_rows=parent_rows)


def _go_on(candidates: Candidates, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best `beams` candidates that do not end: sums, rows and tokens, `[inputs, beams]` each."""
    # among equals another order than the candidates have
    running, best = torch.add(candidates.sums, candidates.ends, alpha=MASKED).topk(beams)
    return running, candidates.rows.gather(1, best), candidates.tokens.gather(1, best)


def _judged(rules: Rules, behind: Tensor, *tensors: Any) -> tuple[Tensor | None, ...]:
    """`_judge` for `Session.replay`: `Held`, `Candidates` and `Open`, one tensor after the other."""
    return _judge(Held(*tensors[:4]), Candidates(*tensors[4:8]), Open(*tensors[8:]), behind, rules)


def _judge(
    held: Held, candidates: Candidates, opened: Open, behind: Tensor, rules: Rules
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """One step of `Finished`: what it holds afterwards, the length, and what `judge` returns.

    All candidates are ranked as transformers ranks them, so that equal scores end up in its order.
    """
    scores, closed, parent_rows, beams = held.scores, held.closed, held.parent_rows, held.scores.shape[1]
    unfit = candidates.ends <= behind  # goes on, or is not among the first
    divisor = opened.divisors.index_select(0, opened.length)
    worth = by_number(candidates.sums, divisor)
    if rules.at_once:
        worth = torch.add(worth, (scores > MASKED / 2).all(-1, keepdim=True), alpha=MASKED)
    worth = torch.add(torch.add(worth, closed, alpha=MASKED), unfit, alpha=MASKED)
    scores, best = torch.cat([scores, worth], 1).topk(beams)  # [inputs, beams]
    scores, best = scores.clamp(min=MASKED), best.clamp(max=2 * beams - 1)  # what is behind is masked
    records, parents = continued(opened, candidates, held.records.shape[1:], rules.prompt)
    records = pick(held.records, records, best)
    if parent_rows is not None and parents is not None:
        parent_rows = pick(parent_rows, parents, best)
    running, rows, tokens = _go_on(candidates, beams)
    done = scores > MASKED / 2
    worst = scores.amin(1, keepdim=True).where(done, MASKED)
    # the best that an open hypothesis can be worth: at its present length, or at the greatest one
    reachable = by_number(running[:, :1], opened.divisors[-1:] if rules.farthest else divisor)
    closed = closed >= (reachable > worst).any(-1, keepdim=True)  # closed, or not any
    over = closed.all() | candidates.ends.all()
    if rules.at_once:
        over = over | done.all()
    return records, scores, closed, parent_rows, opened.length + 1, running, rows, tokens, over


def _fill(session: genmode.Session) -> int:
    """The id behind the end of a hypothesis, as transformers chooses it; without an end of sequence, padding or 0."""
    end = next((one for one in session.eos_token_ids[:1] if 0 <= one < session.vocab_size), 0)
    pad = session.pad_token_id
    return pad if pad and 0 < pad < session.vocab_size else end
