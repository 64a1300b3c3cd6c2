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
        units, device = session.inputs * groups, session.device
        shape = (units, self.size)
        self.done = torch.zeros(units, dtype=torch.bool, device=device)
        self.filled = torch.zeros(shape, dtype=torch.bool, device=device)
        self.worth = torch.zeros(shape, device=device)
        self.met = torch.ones(shape, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(shape, dtype=torch.long, device=device)
        self.sequences = session.history.ids.reshape(*shape, -1).clone()
        self.touched = False
        self._eos = self.lengths.new_tensor(session.eos_token_ids)
        # The row in which each token was chosen: `[units, size, decoded]` of the finished hypotheses,
        # `[rows, decoded]` of the open ones.
        self.trace: Tensor | None = None
        self.open_trace: Tensor | None = None
        if session.generation_config.return_dict_in_generate:
            self.trace = self.sequences.new_zeros(*shape, 0)
            self.open_trace = self.sequences.new_zeros(session.rows, 0)

    def endings(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which candidates end a hypothesis: row `rows` continued by `tokens`, bool, of their shape.

        What is cut off by the maximum length does not end: it stays open.
        """
        session = self.session
        if session.history.ids.shape[1] + 1 < session.max_length:
            return session.done_after(rows.reshape(-1), tokens.reshape(-1)).view(tokens.shape)
        return torch.isin(tokens, self._eos)

    def offer(self, ended: Tensor, sums: Tensor, rows: Tensor, tokens: Tensor) -> None:
        """Take in candidates that end, where they are among the best; all arguments are `[units, n]`.

        Args:
            ended: bool: which candidates are offered.
            sums: float32: summed log-probabilities.
            rows, tokens: long: each continues a row of the session by a token.
        """
        if self.session.surely_none(ended):
            return
        self.touched = True
        history = self.session.history.ids
        ids = torch.cat([history[rows], tokens[:, :, None]], dim=2)  # [units, n, length + 1]
        trace = None
        if self.open_trace is not None:
            trace = torch.cat([self.open_trace[rows], rows[:, :, None]], dim=2)
        self._take(ended, sums, ids, trace, torch.ones_like(ended))

    def _take(self, offered: Tensor, sums: Tensor, ids: Tensor, trace: Tensor | None, met: Tensor) -> None:
        """Keep the best `size` of those held and those offered, `[units, n]`, whose tokens are `ids`."""
        length, prompt = ids.shape[2], self.session.prompt_length
        worth = sums / (length - prompt) ** self.params.length_penalty
        offered = offered & ~self.done[:, None]
        filled = torch.cat([self.filled, offered], dim=1)
        worth = torch.cat([self.worth, worth], dim=1)
        # A taken place counts more than an empty one, whatever it is worth.
        order = worth.clamp(min=torch.finfo(worth.dtype).min).masked_fill(~filled, -torch.inf)
        best = order.topk(self.size).indices  # [units, size]
        self.filled, self.worth = filled.gather(1, best), worth.gather(1, best)
        self.met = torch.cat([self.met, met], dim=1).gather(1, best)
        lengths = torch.full_like(offered, length, dtype=torch.long)
        self.lengths = torch.cat([self.lengths, lengths], dim=1).gather(1, best)
        self.sequences = _pick(_widened(self.sequences, length, self._padding), ids, best)
        if self.trace is not None and trace is not None:
            self.trace = _pick(_widened(self.trace, length - prompt, -1), trace, best)

    def close(self, best: Tensor, exhausted: Tensor) -> Tensor:
        """Update which units are done; returns one bool, true when all are. Call it before the commit.

        Args:
            best: `[units]`, float32: the best sum among this step's candidates, ending ones included.
            exhausted: `[units]`, bool: units whose candidates all end.
        """
        params, prompt = self.params, self.session.prompt_length
        full = self.filled.all(1)
        if params.early_stopping is not True:
            length = self.session.history.ids.shape[1] + 1
            if params.early_stopping == "never" and params.length_penalty > 0:
                length = self.session.max_length
            full = full & (self.worth.amin(1) >= best / (length - prompt) ** params.length_penalty)
        self.done = self.done | full | exhausted
        return self.done.all()

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there; `rows` is `[rows]`, long."""
        if self.open_trace is not None:
            self.open_trace = torch.cat([self.open_trace.index_select(0, rows), rows[:, None]], dim=1)

    def settled(self) -> int:
        """How many leading tokens no open or finished hypothesis of any input disputes; reads the device."""
        inputs = self.session.inputs
        running = self.session.history.ids.view(inputs, self.params.num_beams, -1)  # [inputs, beams, length]
        first = running[:, :1]
        held = _widened(self.sequences, running.shape[2], self._padding)[:, :, : running.shape[2]]
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
        inputs, shape, prompt = session.inputs, self.filled.shape, session.prompt_length
        ids = session.history.ids
        if ids.shape[1] > prompt:
            trace = None if self.open_trace is None else self.open_trace.view(*shape, -1)
            every = torch.ones_like(self.filled)
            offered = every if eligible is None else eligible.view(shape)
            fulfilled = every if met is None else met.view(shape)
            self._take(offered, running.view(shape), ids.view(*shape, -1), trace, fulfilled)
        order = self.worth.masked_fill(~self.filled, -torch.inf).view(inputs, -1)
        best = order.topk(count).indices  # [inputs, count]
        unit = torch.arange(inputs, device=best.device)[:, None] * order.shape[1]
        best = (best + unit).flatten()
        lengths = self.lengths.flatten()[best]
        longest = int(lengths.max())
        sequences = self.sequences.flatten(0, 1)[best, :longest]
        beyond = torch.arange(sequences.shape[1], device=lengths.device) >= lengths[:, None]
        indices = None if self.trace is None else self.trace.flatten(0, 1)[best, : longest - prompt]
        sequences = sequences.masked_fill(beyond, self._padding)
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
    return places.add(ends, alpha=found.shape[1]).topk(count, largest=False, sorted=True).indices


def _widened(held: Tensor, length: int, fill: int) -> Tensor:
    """`held` `[units, size, n]` with at least `length` columns."""
    missing = length - held.shape[2]
    if missing <= 0:
        return held
    return torch.cat([held, held.new_full((*held.shape[:2], missing), fill)], dim=2)


def _pick(held: Tensor, new: Tensor, best: Tensor) -> Tensor:
    """`[units, size, n]` picked by `best` `[units, size]` from both, one behind the other."""
    if new.shape[2] < held.shape[2]:
        raise ValueError("hypotheses are offered in the order of their length")
    merged = torch.cat([held, new], dim=1)
    return merged.gather(1, best[:, :, None].expand(-1, -1, merged.shape[2]))
