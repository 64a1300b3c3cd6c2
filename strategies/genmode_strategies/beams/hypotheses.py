"""Finished hypotheses as transformers 4.49 keeps them, for group and constrained beam search.

Beams form units: those of an input, or one group of them. A unit keeps its best `size` finished hypotheses.
One of n decoded tokens, the ending one included, and summed log-probability s is worth

    s / n^length_penalty

and a unit is done, for good, when it has `size` of them and, with b the best sum among the candidates of
this step and N the most tokens that can be decoded,

    early_stopping=True      at once;
    early_stopping=False     worst >= b / n^length_penalty;
    early_stopping="never"   worst >= b / N^length_penalty, with n for N if length_penalty <= 0.

Beam search follows transformers 5 instead (`genmode_strategies.beams.finished`), whose units may end a step later and
where open hypotheses never displace finished ones. Among equals torch.topk decides. An ending token is shown
as decoded; transformers 4.49 shows the first of `eos_token_id` in its place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.sampling import by_number

from .continuations import (
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


class Units(NamedTuple):
    """Finished hypotheses of each unit, `n` places each.

    Attributes:
        records: `[units, n, max_length + 1]`, long: their tokens. The last column holds the length before the last token;
            what lies behind a length is undefined.
        filled: `[units, n]`, bool: which places are taken.
        worth: `[units, n]`, float32; undefined where not filled.
        met: `[units, n]`, bool: whether the hypothesis meets its constraints.
        parent_rows: `[units, n, decoded]`, int32: the row that each token was chosen in; None if not kept.
    """

    records: Tensor
    filled: Tensor
    worth: Tensor
    met: Tensor
    parent_rows: Tensor | None


class Hypotheses:
    """The best finished hypotheses of each unit.

    Attributes:
        units: they themselves, `size` places for each unit.
        done: `[units]`, bool: takes no more.
        touched: whether any hypothesis may have been taken in.

    Args:
        params: `num_beams`, `length_penalty`, `early_stopping`, `num_return_sequences`.
        groups: units of each input.
    """

    def __init__(self, session: genmode.Session, params: Any, groups: int = 1) -> None:
        self.session, self.params = session, params
        self.rules, self.divisors = rules_of(session, params), divisors_of(session, params.length_penalty)
        device, longest = session.device, session.max_length
        shape = (session.num_inputs * groups, params.num_beams // groups)
        self.done = torch.zeros(shape[0], dtype=torch.bool, device=device)
        parent_rows, self.parents = None, None
        if session.generation_config.return_dict_in_generate:
            parent_rows = torch.full((*shape, longest - session.prompt_length), -1, dtype=torch.int32, device=device)
            self.parents = ParentRows(session)
        self.units = Units(
            records=torch.zeros(*shape, longest + 1, dtype=torch.long, device=device),
            filled=torch.zeros(shape, dtype=torch.bool, device=device),
            worth=torch.zeros(shape, device=device),
            met=torch.ones(shape, dtype=torch.bool, device=device),
            parent_rows=parent_rows,
        )
        self.touched = False
        self._lengths = torch.arange(longest + 1, device=device)
        self._eos = self._lengths.new_tensor(session.eos_token_ids)

    def endings(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which candidates end a hypothesis: row `rows` continued by `tokens`, bool, of their shape.

        What is cut off by the maximum length does not end: it stays open.
        """
        session = self.session
        if session.history.tokens.shape[1] + 1 < session.max_length:
            return session.done_after(rows.reshape(-1), tokens.reshape(-1)).view(tokens.shape)
        return torch.isin(tokens, self._eos)

    def judge(self, candidates: Candidates, fit: Tensor | None = None) -> Tensor:
        """Take in candidates that end, where they are among the best; returns one bool, true when all units are done.

        Call it before the commit, in each step from the first in which one ends.

        Args:
            candidates: of each unit, the best first; only a unit's first `size` are taken in.
            fit: `[units, n]`, bool: which of those that end are taken in; None for all.
        """
        session = self.session
        length, fit = session.history.tokens.shape[1], candidates.ends if fit is None else fit
        over: Tensor
        if host_sync.surely_none(fit):
            reached = self.divisors[-1 if self.rules.farthest else length]
            self.done, over = _closed(self.done, self.units, candidates, reached, self.rules.at_once)
            return over
        self.touched = True
        opened = Open(
            session.replay.buffer(session.max_length + 1), None if self.parents is None else self.parents.rows,
            self._lengths[length].view(1), self.divisors,
        )  # fmt: skip
        result: Any = session.replay(_judged, self.rules, self.done, fit, *self.units, *candidates, *opened)
        self.units, self.done, over = Units(*result[:5]), result[5], result[6]
        return over

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there; `rows` is `[rows]`, long."""
        if self.parents is not None:
            self.parents.follow(rows)

    @property
    def sequences(self) -> Tensor:
        """`[units, size, max_length]`, long, padded."""
        records = self.units.records
        columns = torch.arange(records.shape[2] - 1, device=records.device)
        return records[:, :, :-1].where(columns <= records[:, :, -1:], self._padding)

    def settled(self) -> tuple[Tensor, int]:
        """For `Session.settle`: the first open hypothesis of each input, and how much of it is final."""
        inputs, sequences = self.session.num_inputs, self.sequences
        running = self.session.history.tokens.view(inputs, self.params.num_beams, -1)  # [inputs, beams, length]
        finished = sequences.view(inputs, -1, sequences.shape[2])
        return running[:, 0], undisputed(running, finished, self.units.filled.view(inputs, -1))

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
        inputs, prompt = session.num_inputs, session.prompt_length
        if session.history.tokens.shape[1] > prompt:
            self.units = _best(self.units, self._opened(running, eligible, met))
        units = self.units
        order = units.worth.masked_fill(~units.filled, -torch.inf).view(inputs, -1)
        best = order.topk(count).indices  # [inputs, count]
        unit = torch.arange(inputs, device=best.device)[:, None] * order.shape[1]
        best = (best + unit).flatten()
        longest = int(units.records[:, :, -1].flatten()[best].max()) + 1
        sequences = self.sequences.flatten(0, 1)[best, :longest]
        parent_rows = units.parent_rows
        indices = None if parent_rows is None else parent_rows.flatten(0, 1)[best, : longest - prompt]
        session.finish(sequences, scores=units.worth.flatten()[best], beam_indices=indices)
        return units.met.flatten()[best]

    def _opened(self, running: Tensor, eligible: Tensor | None, met: Tensor | None) -> Units:
        """The open hypotheses as if they had ended; arguments as of `finish`."""
        session, shape, width = self.session, self.units.filled.shape, self.units.records.shape[2]
        length, every = session.history.tokens.shape[1], torch.ones_like(self.units.filled)
        records = session.replay.buffer(width)[:, :width].clone().view(self.units.records.shape)
        records[:, :, -1] = length - 1
        return Units(
            records=records,
            filled=(every if eligible is None else eligible.view(shape)) & ~self.done[:, None],
            worth=by_number(running.view(shape), self.divisors[length - 1]),
            met=every if met is None else met.view(shape),
            parent_rows=None if self.parents is None else self.parents.rows.view(*shape, -1),
        )

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


def _judged(rules: Rules, done: Tensor, fit: Tensor, *tensors: Any) -> tuple[Tensor | None, ...]:
    """`_judge` for `Session.replay`: `Units`, `Candidates` and `Open`, one tensor after the other."""
    units, done, over = _judge(
        Units(*tensors[:5]), done, Candidates(*tensors[5:9]), fit, Open(*tensors[9:]), rules
    )  # fmt: skip
    return *units, done, over


def _judge(
    units: Units, done: Tensor, candidates: Candidates, fit: Tensor, opened: Open, rules: Rules
) -> tuple[Units, Tensor, Tensor]:  # fmt: skip
    """What a step makes of the units, which of them are done, and whether all are; arguments as of `Hypotheses.judge`."""
    size = units.filled.shape[1]
    fit, divisor = fit[:, :size], opened.divisors.index_select(0, opened.length)
    records, parent_rows = continued(opened, candidates, units.records.shape[1:], rules.prompt)
    worth = by_number(candidates.sums[:, :size], divisor)
    units = _best(units, Units(records, fit & ~done[:, None], worth, torch.ones_like(fit), parent_rows))
    reached = opened.divisors[-1:] if rules.farthest else divisor
    return units, *_closed(done, units, candidates, reached, rules.at_once)


def _best(held: Units, added: Units) -> Units:
    """The best of those held and those added, as many as were held."""
    filled, worth = torch.cat([held.filled, added.filled], 1), torch.cat([held.worth, added.worth], 1)
    # A taken place counts more than an empty one, whatever it is worth.
    order = worth.clamp(min=torch.finfo(worth.dtype).min).masked_fill(~filled, -torch.inf)
    best = order.topk(held.filled.shape[1]).indices  # [units, size]
    parent_rows = None
    if held.parent_rows is not None and added.parent_rows is not None:
        parent_rows = pick(held.parent_rows, added.parent_rows, best)
    return Units(
        pick(held.records, added.records, best), filled.gather(1, best), worth.gather(1, best),
        pick(held.met, added.met, best), parent_rows,
    )  # fmt: skip


def _closed(
    done: Tensor, units: Units, candidates: Candidates, divisor: Tensor, at_once: bool
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Which units are done, `[units]`, and whether all are."""
    full = units.filled.all(1)
    if not at_once:
        full = full & (units.worth.amin(1) >= by_number(candidates.sums[:, 0], divisor))
    done = done | full | candidates.ends.all(1)
    return done, done.all()
