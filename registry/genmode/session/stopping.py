"""Which rows are done, and when the host learns of it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..contract.criterion import StoppingCriterion
from ..contract.history import History
from ..contract.stand_in import StandIn
from ..contract.traits import Trait
from ..errors import DecodingError, GenmodeError, UnsupportedError
from .token_buffer import TokenBuffer


class TransformersCriterion(StoppingCriterion):
    """A plain transformers criterion, or any callable `(input_ids, scores) -> done`, as it is."""

    contract_version = 1

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call
        self.label = getattr(call, "__name__", type(call).__name__)
        self.recorded: Any = None
        """Scores recorded so far, as transformers passes them; None unless the call records scores."""

    def __repr__(self) -> str:
        return self.label

    def check(self, history: History) -> Tensor:
        result = torch.zeros(history.rows, dtype=torch.bool, device=history.tokens.device)
        if not isinstance(history, TokenBuffer):
            raise TypeError(f"{self.label} reads whole rows, of a running call")
        for ids, mask in history.rectangles():
            done = self.call(ids, self.recorded)
            done = done if isinstance(done, Tensor) else torch.full_like(result, bool(done))
            done = done.to(device=result.device, dtype=torch.bool)
            result = done if mask is None else torch.where(mask, done, result)
        return result


@dataclasses.dataclass(frozen=True)
class ByTokens:
    """Which candidates end a row by their tokens alone."""

    eos: tuple[int, ...]

    def __call__(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Bool, of the shape of `tokens`."""
        ends = torch.zeros_like(tokens, dtype=torch.bool)
        for one in self.eos:
            ends = ends | (tokens == one)
        return ends


class Stopping:
    """The criteria of one call.

    Length, time and end of sequence are known to the session itself, which needs them for padding and for
    stopping without asking the device.

    Attributes:
        max_length: a row of this length is done.
        deadline: `time.monotonic()` seconds after which every row is done; None for no limit.
        eos: ids that end a row.
        others: all further criteria.
        by_row: whether rows that end are padded: asked for, or there is an end of sequence, or a criterion that is not
            transformers'. Rows that only criteria of transformers end go on until all have ended, as there.
    """

    def __init__(
        self, max_length: int, deadline: float | None, eos: Sequence[int], device: torch.device,
        others: Sequence[StoppingCriterion], by_row: bool = False,
    ) -> None:  # fmt: skip
        self.max_length, self.deadline, self.others = max_length, deadline, list(others)
        self.eos = list(eos)
        self.by_row = (
            by_row or bool(eos) or any(not isinstance(one, (TransformersCriterion, StandIn)) for one in others)
        )
        self._ids = torch.tensor(self.eos, device=device) if len(self.eos) > 1 else None

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def ends(self, tokens: Tensor) -> Tensor | None:
        """Which of `tokens` end their row, bool of their shape; None if no token does."""
        if not self.eos:
            return None
        return tokens == self.eos[0] if self._ids is None else torch.isin(tokens, self._ids)

    @property
    def by_tokens(self) -> ByTokens | None:
        """What `ends` says, as a constant; None where a deadline or another criterion decides as well."""
        return None if self.others or self.deadline is not None else ByTokens(tuple(self.eos))

    @property
    def needs_scores(self) -> bool:
        """Whether any criterion reads the scores that a token was chosen from."""
        return any(Trait.READS_SCORES in one.traits for one in self.others)

    def check(self, history: History, scores: Callable[[], Tensor], rows: Tensor | None = None) -> Tensor | None:
        """What the further criteria say of each row's last token: `[rows]`, bool; None if there are none.

        Args:
            history: the rows.
            scores: gives the scores that the last tokens were chosen from, `[rows, vocab]`, where asked for.
            rows: if given, `history` holds candidates, of which the i-th continues row `rows[i]`.
        """
        done: Tensor | None = None
        for one in self.others:
            checker = one
            if rows is not None:
                if Trait.PROBES in one.traits:
                    raise UnsupportedError(
                        f"criterion {one.name!r} asks the model what would follow, which it cannot of candidates that are "
                        "no rows yet; use a strategy that does not weigh several, such as 'greedy_search' or 'sample'"
                    )
                checker = copy.copy(one)
                _told(checker, "reorder", rows)
            more = (scores(),) if Trait.READS_SCORES in one.traits else ()
            new: Tensor = _told(checker, "check", history, *more)
            done = new if done is None else done | new
        return done

    def begin(self, context: Any) -> None:
        """A call begins."""
        for one in self.others:
            _told(one, "begin", context)

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        for one in self.others:
            _told(one, "reorder", rows)

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""
        for one in self.others:
            _told(one, "rollback", counts)

    def endings(self) -> list[Callable[[], None]]:
        """What to do when the call has ended, one function for each criterion."""
        return [functools.partial(_told, one, "reset") for one in self.others]


def _told(criterion: StoppingCriterion, method: str, *arguments: Any) -> Any:
    try:
        return getattr(criterion, method)(*arguments)
    except GenmodeError:
        raise
    except Exception as error:
        raise DecodingError(
            f"criterion {criterion!r} failed in {method}: {type(error).__name__}: {error}", component=criterion.name
        ) from error
