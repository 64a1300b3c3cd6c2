"""Finished hypotheses as transformers 4.49 keeps them, for group and constrained beam search.

Beams form units: those of an input, or one group of them. A unit keeps its best `size` finished hypotheses.
One of n decoded tokens, the ending one included, and summed log-probability s is worth

    s / n^length_penalty

and a unit is done, for good, when it has `size` of them and, with b the best sum among the candidates of
this step and N the most tokens that can be decoded,

    early_stopping=True      at once;
    early_stopping=False     worst >= b / n^length_penalty;
    early_stopping="never"   worst >= b / N^length_penalty, with n for N if length_penalty <= 0.

Beam search follows transformers 5 instead (`genmode_strategies.beams`), whose units may end a step later and
where open hypotheses never displace finished ones. Among equals torch.topk decides. An ending token is shown
as decoded; transformers 4.49 shows the first of `eos_token_id` in its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genmode

from .beams import Trace, divisors_of, pick, worth_of


class Hypotheses:
    """The best finished hypotheses of each unit.

    Attributes:
        done: `[units]`, bool: takes no more.
        filled: `[units, size]`, bool: which places are taken.
        worth: `[units, size]`, float32; undefined where not filled.
        met: `[units, size]`, bool: whether the hypothesis meets its constraints.

    Args:
        params: `num_beams`, `length_penalty`, `early_stopping`, `num_return_sequences`.
        groups: units of each input.
    """

    def __init__(self, session: genmode.Session, params: Any, groups: int = 1) -> None:
        self.session, self.params, self.groups = session, params, groups
        self.size = params.num_beams // groups
        units, device, longest = session.inputs * groups, session.device, session.max_length
        shape = (units, self.size)
        self.done = torch.zeros(units, dtype=torch.bool, device=device)
        self.filled = torch.zeros(shape, dtype=torch.bool, device=device)
        self.worth = torch.zeros(shape, device=device)
        self.met = torch.ones(shape, dtype=torch.bool, device=device)
        session.history.reserve(longest + 1)
        # The last column holds the length before the last token; what lies behind a length is undefined.
        self.records = torch.zeros(*shape, longest + 1, dtype=torch.long, device=device)
        self.touched = False
        self.divisors = divisors_of(session, params.length_penalty)
        self.lengths = torch.arange(longest + 1, device=device)
        self._eos = self.records.new_tensor(session.eos_token_ids)
        # The row in which each token was chosen, of the finished hypotheses `[units, size, decoded]`, int32.
        self.trace: Tensor | None = None
        self.open_trace: Trace | None = None
        if session.generation_config.return_dict_in_generate:
            self.trace = torch.full((*shape, longest - session.prompt_length), -1, dtype=torch.int32, device=device)
            self.open_trace = Trace(session)

    def endings(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which candidates end a hypothesis: row `rows` continued by `tokens`, bool, of their shape.

        What is cut off by the maximum length does not end: it stays open.
        """
        session = self.session
        if session.history.ids.shape[1] + 1 < session.max_length:
            return session.done_after(rows.reshape(-1), tokens.reshape(-1)).view(tokens.shape)
        return torch.isin(tokens, self._eos)

    def judge(self, found: Tensor, rows: Tensor, tokens: Tensor, ends: Tensor, offered: Tensor | None = None) -> Tensor:
        """Take in candidates that end, where they are among the best; returns one bool, true when all units are done.

        Call it before the commit, in each step from the first in which one ends. All arguments are `[units, n]`, the
        best candidate first; only a unit's first `size` are taken in.

        Args:
            found: float32: summed log-probabilities.
            rows, tokens: long: each continues a row of the session by a token.
            ends: bool: which of them end.
            offered: bool: which of these are taken in; None for all.
        """
        session, params = self.session, self.params
        length, at_once = session.history.ids.shape[1], params.early_stopping is True
        farthest = params.early_stopping == "never" and params.length_penalty > 0
        over: Tensor
        if session.surely_none(ends if offered is None else offered):
            reached = self.divisors[-1 if farthest else length]
            self.done, over = _closed(self.done, self.filled, self.worth, ends, found, reached, at_once)
            return over
        self.touched = True
        result: Any = session.replay(
            _judged, self.records, self.filled, self.worth, self.met, self.trace, self.done, rows, tokens, offered,
            None if self.open_trace is None else self.open_trace.rows, session.history.tokens, session.prompt_length,
            ends, found, self.divisors, self.lengths[length].view(1), at_once, farthest,
        )  # fmt: skip
        self.records, self.filled, self.worth, self.met, self.trace, self.done = result[:6]
        over = result[6]
        return over

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there; `rows` is `[rows]`, long."""
        if self.open_trace is not None:
            self.open_trace.follow(rows)

    @property
    def sequences(self) -> Tensor:
        """`[units, size, max_length]`, long, padded."""
        columns = torch.arange(self.records.shape[2] - 1, device=self.records.device)
        return self.records[:, :, :-1].where(columns <= self.records[:, :, -1:], self._padding)

    def settled(self) -> int:
        """How many leading tokens no open or finished hypothesis of any input disputes; reads the device."""
        inputs = self.session.inputs
        running = self.session.history.ids.view(inputs, self.params.num_beams, -1)  # [inputs, beams, length]
        first = running[:, :1]
        held = self.sequences[:, :, : running.shape[2]]
        held = held.reshape(inputs, -1, running.shape[2])
        empty = ~self.filled.view(inputs, -1, 1)
        same = (running == first).all(1) & ((held == first) | empty).all(1)
        return int(same.long().cumprod(1).sum(1).min())

    def finish(self, running: Tensor, eligible: Tensor | None = None, met: Tensor | None = None) -> Tensor:
        """State the result: the best of each input, best first. Open hypotheses take part where not done.

        Args:
            running: `[rows]`, float32: summed log-probabilities of the open hypotheses.
            eligible: `[rows]`, bool: open hypotheses that may take part; None for all.
            met: `[rows]`, bool: those that meet their constraints; None for all.

        Returns:
            Whether each result meets its constraints: `[inputs * num_return_sequences]`, bool.
        """
        session, count = self.session, self.params.num_return_sequences
        inputs, shape = session.inputs, self.filled.shape
        prompt, length = session.prompt_length, session.history.ids.shape[1]
        if length > prompt:
            every = torch.ones_like(self.filled)
            offered = (every if eligible is None else eligible.view(shape)) & ~self.done[:, None]
            records = session.history.tokens[:, : self.records.shape[2]].clone().view(self.records.shape)
            records[:, :, -1] = length - 1
            found: tuple[Any, ...] = _best(
                self.records, self.filled, self.worth, self.met, self.trace, offered,
                worth_of(running.view(shape), self.divisors[length - 1]), records,
                None if self.open_trace is None else self.open_trace.rows.view(*shape, -1),
                every if met is None else met.view(shape),
            )  # fmt: skip
            self.records, self.filled, self.worth, self.met, self.trace = found
        order = self.worth.masked_fill(~self.filled, -torch.inf).view(inputs, -1)
        best = order.topk(count).indices  # [inputs, count]
        unit = torch.arange(inputs, device=best.device)[:, None] * order.shape[1]
        best = (best + unit).flatten()
        longest = int(self.records[:, :, -1].flatten()[best].max()) + 1
        sequences = self.sequences.flatten(0, 1)[best, :longest]
        indices = None if self.trace is None else self.trace.flatten(0, 1)[best, : longest - prompt]
        session.finish(sequences, scores=self.worth.flatten()[best], beam_indices=indices)
        return self.met.flatten()[best]

    @property
    def _padding(self) -> int:
        pad, eos = self.session.pad_token_id, self.session.eos_token_ids
        return pad if pad is not None else eos[0] if eos else 0


def continuing(found: Tensor, ends: Tensor, count: int) -> Tensor:
    """The first `count` candidates of each line that do not end: their places, `[units, count]`, long.

    Args:
        found: `[units, n]`: scores, descending.
        ends: `[units, n]`, bool.
    """
    places = torch.arange(found.shape[1], device=found.device)
    return places.add(ends, alpha=found.shape[1]).sort(1).indices[:, :count]


def _judged(
    records: Tensor, filled: Tensor, worth: Tensor, met: Tensor, trace: Tensor | None, done: Tensor, rows: Tensor,
    tokens: Tensor, offered: Tensor | None, open_trace: Tensor | None, history: Tensor, prompt: int,
    ends: Tensor, found: Tensor, divisors: Tensor, length: Tensor, at_once: bool, farthest: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """What `Hypotheses` holds after a step: records, filled, worth, met, trace and done; and whether all is."""
    units, count = filled.shape
    rows, tokens, taken = rows[:, :count], tokens[:, :count], (ends if offered is None else offered)[:, :count]
    parents = rows.flatten()
    candidates = history[:, : records.shape[2]].index_select(0, parents).view(units, count, -1)
    candidates.scatter_(2, length.expand(units, count, 1), tokens[:, :, None])
    candidates[:, :, -1] = length
    traces = None
    if open_trace is not None:
        chosen = rows[:, :, None].to(torch.int32)
        traces = open_trace.index_select(0, parents).view(units, count, -1)
        traces = traces.scatter(2, (length - prompt).expand(chosen.shape), chosen)
    divisor = divisors.index_select(0, length)
    held = _best(
        records, filled, worth, met, trace, taken & ~done[:, None], worth_of(found[:, :count], divisor), candidates,
        traces, torch.ones_like(taken),
    )  # fmt: skip
    reached = divisors[-1:] if farthest else divisor
    return *held, *_closed(done, held[1], held[2], ends, found, reached, at_once)


def _best(
    records: Tensor, filled: Tensor, worth: Tensor, met: Tensor, trace: Tensor | None, offered: Tensor, values: Tensor,
    candidates: Tensor, traces: Tensor | None, fulfilled: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """The best of those held and those offered, `[units, n]`: records, filled, worth, met and trace."""
    size = filled.shape[1]
    filled, worth = torch.cat([filled, offered], 1), torch.cat([worth, values], 1)
    # A taken place counts more than an empty one, whatever it is worth.
    order = worth.clamp(min=torch.finfo(worth.dtype).min).masked_fill(~filled, -torch.inf)
    best = order.topk(size).indices  # [units, size]
    records = pick(records, candidates, best)
    trace = None if trace is None or traces is None else pick(trace, traces, best)
    return records, filled.gather(1, best), worth.gather(1, best), pick(met, fulfilled, best), trace


def _closed(
    done: Tensor, filled: Tensor, worth: Tensor, ends: Tensor, found: Tensor, divisor: Tensor, at_once: bool
) -> tuple[Tensor, Tensor]:
    """Which units are done, `[units]`, and whether all are."""
    full = filled.all(1)
    if not at_once:
        full = full & (worth.amin(1) >= worth_of(found[:, 0], divisor))
    done = done | full | ends.all(1)
    return done, done.all()
