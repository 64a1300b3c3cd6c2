"""Continuations of open hypotheses: what the beam strategies choose from, and what is kept of those that end."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

import genmode
from genmode.sampling import number_divisors

MASKED = -1.0e9
"""A score that never wins: not minus infinity, so that such scores add up."""


class Candidates(NamedTuple):
    """Continuations of open hypotheses, `[units, n]` each; a unit is an input, or one group of its beams.

    Attributes:
        sums: float32: summed log-probabilities.
        rows, tokens: long: each continues a row of the session by a token.
        ends: bool: which of them end.
    """

    sums: Tensor
    rows: Tensor
    tokens: Tensor
    ends: Tensor


class Open(NamedTuple):
    """The open hypotheses before a step's tokens.

    Attributes:
        tokens: `[rows, at least max_length + 1]`, long.
        parent_rows: `[rows, max_length - prompt]`, int32, see `ParentRows`; None if not kept.
        length: `[1]`, long: how many tokens each has.
        divisors: `[max_length]`, float32, see `divisors_of`.
    """

    tokens: Tensor
    parent_rows: Tensor | None
    length: Tensor
    divisors: Tensor


class Rules(NamedTuple):
    """The constants of a call.

    Attributes:
        prompt: tokens of the prompt.
        at_once: whether a unit is done as soon as it has all its hypotheses.
        farthest: whether an open hypothesis is judged by what it is worth at the greatest length.
    """

    prompt: int
    at_once: bool
    farthest: bool


def rules_of(session: genmode.Session, params: Any) -> Rules:
    """The rules that the parameters ask for."""
    early = params.early_stopping
    return Rules(session.prompt_length, early is True, early == "never" and params.length_penalty > 0.0)


class ParentRows:
    """In which row each token of each row was chosen.

    Attributes:
        rows: `[rows, max_length - prompt]`, int32, -1 where there is none yet.
    """

    def __init__(self, session: genmode.Session) -> None:
        self.session = session
        size = session.max_length - session.prompt_length
        self.rows = torch.full((session.rows, size), -1, dtype=torch.int32, device=session.device)

    def follow(self, rows: Tensor) -> None:
        """Row i has become `rows[i]` and taken a token there."""
        self.rows = self.rows.index_select(0, rows)
        self.rows[:, self.session.history.tokens.shape[1] - self.session.prompt_length - 1] = rows.to(torch.int32)


def continued(
    opened: Open, candidates: Candidates, size: tuple[int, ...], prompt: int
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The first candidates of each unit as finished hypotheses: their records and parent rows.

    Args:
        size: how many of each unit, and the width of a record.
        prompt: tokens of the prompt.

    Returns:
        `[units, *size]`, long, see `Held.records`; and `[units, size[0], decoded]`, int32, or None if not kept.
    """
    count, width = size
    rows, tokens = candidates.rows[:, :count], candidates.tokens[:, :count, None]
    parents, parent_rows = rows.flatten(), None
    records = opened.tokens[:, :width].index_select(0, parents).view(*rows.shape, width)
    records.scatter_(2, opened.length.expand(tokens.shape), tokens)
    records[:, :, -1] = opened.length
    if opened.parent_rows is not None:
        chosen = rows[:, :, None].to(torch.int32)
        parent_rows = opened.parent_rows.index_select(0, parents).view(*rows.shape, -1)
        parent_rows = parent_rows.scatter(2, (opened.length - prompt).expand(chosen.shape), chosen)
    return records, parent_rows


def undisputed(running: Tensor, finished: Tensor, taken: Tensor) -> int:
    """How many leading tokens no open or finished hypothesis of any input disputes; reads the device.

    Args:
        running: `[inputs, beams, length]`, long: the open hypotheses.
        finished: `[inputs, n, at least length]`, long: the finished ones.
        taken: `[inputs, n]`, bool: which of these there are.
    """
    first, finished = running[:, :1], finished[:, :, : running.shape[2]]
    same = (running == first).all(1) & ((finished == first) | ~taken[:, :, None]).all(1)
    return int(same.long().cumprod(1).sum(1).min())


def divisors_of(session: genmode.Session, penalty: float) -> Tensor:
    """By the length before the last token, what `by_number` takes: `[max_length]`, float32.

    Raises:
        ParameterError: the power of a length would make scores infinite, or all equal.
    """
    most = session.max_length - session.prompt_length
    least, greatest = -5, 28  # powers of ten: what is worth less than half of `MASKED` counts as nothing
    if not least <= penalty * math.log10(max(most, 1)) <= greatest:
        raise genmode.ParameterError(
            f"length_penalty={penalty} of results of up to {most} tokens leaves the range of numbers; give one nearer to 0"
        )
    decoded = torch.arange(1, session.max_length + 1, device=session.device) - session.prompt_length
    divisors = (decoded.clamp(min=1).double() ** penalty).float()
    return number_divisors(divisors)


def pick(old: Tensor, new: Tensor, best: Tensor) -> Tensor:
    """`[inputs, beams, ...]` picked by `best` `[inputs, beams]` from both, one behind the other."""
    merged = torch.cat([old, new.to(old.dtype)], 1)
    return merged.gather(1, best.view(*best.shape, *[1] * (merged.dim() - 2)).expand(*best.shape, *merged.shape[2:]))
