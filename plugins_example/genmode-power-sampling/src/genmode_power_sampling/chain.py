"""Chains of Metropolis and Hastings over the texts of all rows at once.

A text x is what a row decodes: |x| tokens, up to where the call ends the row, that token included, or up to the column
where the present block ends. With s_t the scores of token t after all processors,

    p_t = softmax(s_t)                  q_t = softmax(s_t / tau)
    pi(x) ~ product over t of p_t(x_t)^alpha

A move keeps a row's tokens before a position m, drawn uniformly from the |x| ones that it has, and draws the rest anew
from q, until it ends. It is accepted with probability min(1, r):

    log r = sum over t >= m of [alpha log p_t(x'_t) - log q_t(x'_t)] - [alpha log p_t(x_t) - log q_t(x_t)]
            + log |x| - log |x'|

An ended text has no tokens behind its end: nothing there is drawn or counted, so texts of different lengths propose each
other. The way there picks m with probability 1 / |x| and the way back with 1 / |x'|, which are the last two terms: each
text that shares the tokens before m has more than m tokens, so m can be picked on the way back. The move leaves pi as it
is, of all texts that end or reach the column. When a block is added, rows that have not ended go on with draws from q.

The session's rows hold what was proposed last. A row begins again where its next proposal parts from that, or, where the
last one was refused, where that parted from the row's text; what is known behind that place is run as a draft.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import genmode


class Texts(NamedTuple):
    """One text of each row; what stands behind its length is undefined.

    Attributes:
        tokens: `[rows, room]`, long.
        lengths: `[rows]`, long.
        ended: `[rows]`, bool: whether the call has ended it.
        log_p, log_q: `[rows, room]`, float64: of each token; 0 behind the end.
    """

    tokens: Tensor
    lengths: Tensor
    ended: Tensor
    log_p: Tensor
    log_q: Tensor


class Chain:
    """The chains of a session's rows.

    Args:
        session: before its first step.
        alpha: the power.
        tau: temperature of proposals.
    """

    def __init__(self, session: genmode.Session, alpha: float, tau: float) -> None:
        self.session, self.alpha, self.tau = session, alpha, tau
        rows, device = session.rows, session.device
        self.room = session.max_length - session.prompt_length
        nothing = torch.zeros(rows, self.room, dtype=torch.float64, device=device)
        none = torch.zeros(rows, dtype=torch.long, device=device)
        self.texts = Texts(nothing.long(), none, none.bool(), nothing, nothing)
        self.agreed = none
        """How many tokens of its text each row of the session holds, before others."""
        self.begun = False

    def extend(self, end: int) -> None:
        """Texts that have not ended go on to column `end`."""
        self.texts = self.proposal(self.texts.lengths, end)
        self.agreed = self.texts.lengths

    def move(self, fixed: Tensor) -> None:
        """Propose another text for each row that is not `fixed` `[rows]`, bool, and take it or leave it."""
        place, chance = (number(self.session) for _ in range(2))
        old = self.texts
        first = (place * old.lengths).long().where(~fixed, old.lengths)
        new = self.proposal(first, int(old.lengths.max()))
        accepted = (chance.log() < log_ratio(old, new, self.alpha)) | fixed
        self.texts = chosen(accepted, new, old)
        self.agreed = new.lengths.where(accepted, first)

    def restore(self) -> None:
        """The session's rows become the texts."""
        self.proposal(self.texts.lengths, 0)

    def proposal(self, first: Tensor, end: int) -> Texts:
        """Texts that keep each row's tokens before `first` `[rows]` and are drawn from there to column `end`."""
        session, old = self.session, self.texts
        tokens, log_p, log_q = (one.clone() for one in (old.tokens, old.log_p, old.log_q))
        kept = torch.minimum(first, self.agreed)
        if self.begun:
            session.restart(kept + session.prompt_length)
        known = first - kept  # so much of a row's text comes behind what the session's row has of it
        most = int(known.max())
        columns = (kept[:, None] + torch.arange(most + 1, device=known.device)).clamp(max=self.room - 1)
        again = old.tokens.gather(1, columns)
        if most:
            session.draft(again[:, :most])
        for step in session.steps() if most or self.running(end).any() else ():
            if most:
                width = 0 if step.draft is None else step.draft.shape[1]
                given = torch.nn.functional.pad(again, (0, max(0, width - most)))[:, : width + 1]
                step.commit(given, counts=known)
                most = 0
            else:
                place = (session.history.lengths - session.prompt_length).clamp(max=self.room - 1)[:, None]
                running, log_probabilities = self.running(end), step.scores.double().log_softmax(-1)
                step.scores = step.scores / self.tau
                proposed, token = step.scores.double().log_softmax(-1), step.sample()[:, None]
                drawn = (token, log_probabilities.gather(1, token), proposed.gather(1, token))
                for table, value in zip((tokens, log_p, log_q), drawn, strict=True):
                    table.scatter_(1, place, value.where(running[:, None], table.gather(1, place)))
                step.commit(token[:, 0], counts=running.long())
            session.stop_when(~self.running(end).any())
        self.begun = True
        lengths = session.history.lengths - session.prompt_length
        ended = ~session.unfinished & (lengths < self.room)
        columns = torch.arange(self.room, device=lengths.device)
        behind = columns >= lengths[:, None]
        return Texts(tokens, lengths, ended, log_p.masked_fill(behind, 0), log_q.masked_fill(behind, 0))

    def running(self, end: int) -> Tensor:
        """Rows that are to go on, since they neither have ended nor reached column `end`: `[rows]`, bool."""
        return self.session.unfinished & (self.session.history.lengths - self.session.prompt_length < end)


def number(session: genmode.Session) -> Tensor:
    """A number in [0, 1) with 48 bits for each row: `[rows]`, float64."""
    return session.uniform().double() + session.uniform().double() * 2.0**-24


def log_ratio(old: Texts, new: Texts, alpha: float) -> Tensor:
    """log r of moves from `old` to `new`, `[rows]`, float64; what both share cancels out."""
    gain = alpha * (new.log_p - old.log_p) - (new.log_q - old.log_q)  # [rows, room]
    return gain.sum(1) + old.lengths.double().log() - new.lengths.double().log()


def chosen(rows: Tensor, new: Texts, old: Texts) -> Texts:
    """The new text in `rows` `[rows]`, bool, the old one in the others."""
    pairs = zip(new, old, strict=True)
    return Texts(*(torch.where(rows if one.dim() == 1 else rows[:, None], one, other) for one, other in pairs))
