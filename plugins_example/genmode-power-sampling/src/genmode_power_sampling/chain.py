"""Chains of Metropolis and Hastings over the texts of all rows at once.

A text x is what a row decodes: |x| tokens, up to its end-of-sequence token, that included, or up to the column where
the present block ends. With s_t the scores of token t after all processors,

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

All rows are rewritten in one sweep from the earliest of their positions on; a row before its own position keeps its
tokens. So rows stay level, and a move takes as many forwards as one row alone would at worst. Its random numbers are
taken for every column, used or not, so that those of a row do not depend on where others begin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import genmode

from .reader import Reader


class Texts(NamedTuple):
    """One text of each row.

    Attributes:
        tokens: `[rows, room]`, long, padded behind the end.
        lengths: `[rows]`, long.
        ended: `[rows]`, bool: whether the last token is an end of sequence.
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
        session: before its first commit.
        alpha: the power.
        tau: temperature of proposals.
        block: tokens that are added before moves are made.
        moves: how many moves follow each block.
        stop: whether rows that have ended behind a block's moves stay as they are.

    Attributes:
        end: columns that are filled; row r's text is `tokens[r, :lengths[r]]`.
    """

    def __init__(self, session: genmode.Session, alpha: float, tau: float, block: int, moves: int, stop: bool) -> None:
        self.session, self.alpha, self.tau = session, alpha, tau
        self.block, self.moves, self.stop = block, moves, stop
        self.room = session.max_length - session.prompt_length
        self.end = 0
        rows, device = session.rows, session.device
        self.ends = torch.tensor(session.eos_token_ids, dtype=torch.long, device=device)
        self.pad = next((i for i in (session.pad_token_id, *session.eos_token_ids) if i is not None), 0)
        nothing = torch.zeros(rows, self.room, dtype=torch.float64, device=device)
        self.texts = Texts(
            torch.full((rows, self.room), self.pad, device=device),
            torch.zeros(rows, dtype=torch.long, device=device),
            torch.zeros(rows, dtype=torch.bool, device=device),
            nothing,
            nothing,
        )
        self.fixed = torch.zeros(rows, dtype=torch.bool, device=device)
        self.reader = Reader(session)
        self.scorer = session.draft_scorer()
        self.readback = session.async_readback(1)

    @property
    def tokens(self) -> Tensor:
        """`[rows, room]`, long, padded behind the end."""
        return self.texts.tokens

    @property
    def lengths(self) -> Tensor:
        """`[rows]`, long."""
        return self.texts.lengths

    def run(self) -> None:
        """Block after block, each with its moves, until the longest length is reached."""
        while self.end < self.room:
            begin, self.end = self.end, min(self.end + self.block, self.room)
            self.texts = self.proposal(torch.full_like(self.lengths, begin), begin)
            for _ in range(self.moves):
                self.move()
            if self.stop:
                self.fixed = self.texts.ended
                if bool(self.fixed.all()):  # read once for each block
                    return

    def move(self) -> None:
        """Propose another text for each row, and take it or leave it."""
        self.session.check_cancelled()
        place, chance = self.numbers(2).unbind(1)
        first = (place * self.lengths).long().masked_fill(self.fixed, self.end)  # [rows]
        start = int(first.min())  # read once for each move, which takes many forwards
        texts = self.proposal(first, start)
        accepted = chance.log() < log_ratio(self.texts, texts, self.alpha)
        self.texts = chosen(accepted & ~self.fixed, texts, self.texts)
        self.reader.forget(start)

    def proposal(self, first: Tensor, start: int) -> Texts:
        """Texts that keep each row's tokens before `first` `[rows]`, none below `start`, and are drawn from there on."""
        old = self.texts
        tokens, log_p, log_q = (x.clone() for x in (old.tokens, old.log_p, old.log_q))
        running = (first < old.lengths) | ~old.ended  # rows that have a token in the next column
        lengths = old.lengths.masked_fill(running, start)
        ended = old.ended & ~running
        tokens[:, start:] = self.pad
        log_p[:, start:] = log_q[:, start:] = 0
        numbers = self.numbers(self.end)  # [rows, end]
        with self.scorer as guess:
            for column in range(start):
                guess.take(tokens[:, column])
            for column in range(start, self.end):
                scores = guess.scores(self.reader.logits(tokens, column)).double()
                log_probabilities, proposed = scores.log_softmax(-1), (scores / self.tau).log_softmax(-1)
                token = drawn(proposed.exp(), numbers[:, column])
                token = old.tokens[:, column].where(column < first, token).where(running, self.pad)
                tokens[:, column] = token
                for kept, values in ((log_p, log_probabilities), (log_q, proposed)):
                    kept[:, column] = values.gather(1, token[:, None])[:, 0].where(running, 0.0)
                guess.take(token)
                lengths = lengths + running
                ended = ended | (running & torch.isin(token, self.ends))
                running = running & ~ended
                if self.nobody(running, column == start):
                    break
        return Texts(tokens, lengths, ended, log_p, log_q)

    def nobody(self, running: Tensor, first: bool) -> bool:
        """Whether no row goes on, as far as the host knows; on a device that is known one token late."""
        if not len(self.ends):
            return False
        seen = self.readback.exchange(running.any().long()[None])
        if self.readback.deferred and first:  # what comes back is of the last sweep
            return False
        return seen is not None and not int(seen[0])

    def numbers(self, count: int) -> Tensor:
        """Numbers in [0, 1) with 48 bits: `[rows, count]`, float64."""
        parts = torch.stack([self.session.uniform() for _ in range(2 * count)], dim=1).double()
        return parts[:, :count] + parts[:, count:] * 2.0**-24


def log_ratio(old: Texts, new: Texts, alpha: float) -> Tensor:
    """log r of moves from `old` to `new`, `[rows]`, float64; what both share cancels out."""
    gain = alpha * (new.log_p - old.log_p) - (new.log_q - old.log_q)  # [rows, room]
    return gain.sum(1) + old.lengths.double().log() - new.lengths.double().log()


def drawn(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """The token of each row in whose share of `probabilities` `[rows, vocab]` its number falls: `[rows]`, long."""
    reached = probabilities.cumsum(-1)
    return torch.searchsorted(reached, numbers[:, None] * reached[:, -1:], right=True)[:, 0]


def chosen(rows: Tensor, new: Texts, old: Texts) -> Texts:
    """The new text in `rows` `[rows]`, bool, the old one in the others."""
    pairs = zip(new, old, strict=True)
    return Texts(*(torch.where(rows if one.dim() == 1 else rows[:, None], one, other) for one, other in pairs))
