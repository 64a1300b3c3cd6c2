"""The contract of processors: logits in, logits out, each step."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar

from .component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from .context import Context
    from .history import History


class Stage(enum.IntEnum):
    """Where in the chain a processor runs; stages run in this order.

    Within one stage: transformers' order, then declared `before` and `after`, then name.
    """

    BIAS = 0
    PENALTY = 1
    CONSTRAINT = 2
    GUIDANCE = 3
    TEMPERATURE = 4
    TRUNCATION = 5
    WATERMARK = 6
    NORMALISE = 7


class LogitsProcessor(Component):
    """Changes the scores of the next token.

    Life of an object: `begin`, then for each step `process` followed by `accept` of the chosen tokens;
    `reorder` and `rollback` when rows are reordered or go back; `on_finish` with the result, and `reset` when the call has
    ended, after which the object may serve another call. A stateless processor implements `process` alone. An object
    that keeps state serves one call at a time.

    Class attributes:
        stage: where in the chain it runs.
        before, after: names of processors of the same stage that it must precede or follow.
    """

    stage: ClassVar[Stage] = Stage.GUIDANCE
    before: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()

    def begin(self, context: Context) -> None:
        """A call begins; `context` tells rows, device, vocabulary, tokenizer and the prompt."""

    def process(self, scores: Tensor, history: History) -> Tensor:
        """New scores.

        Args:
            scores: `[rows, vocab]`, float32; may be written in place.
            history: the tokens so far.

        Returns:
            `[rows, vocab]`, float32; the same tensor or another.
        """
        raise TypeError(f"{type(self).__name__} must define process(scores, history)")

    def accept(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`, long. Finished rows get the padding token."""

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long."""

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` accepted tokens; `counts` is `[rows]`, long."""

    def forced_tokens(self, limit: int) -> tuple[Tensor, Tensor] | None:
        """Tokens that rows have to go on with, or nearly so, to be run in one forward; None for none.

        They are a draft like any other: a row takes as much of them as it would have chosen itself, so what is wrong
        costs time and changes nothing. Asked for behind a commit, by strategies that can draft.

        Returns:
            Tokens `[rows, k]`, long, with k at most `limit`, and how many of them are meant in each row, `[rows]`.
        """
        return None

    def on_finish(self, sequences: Tensor) -> None:
        """The strategy has returned: `sequences` `[results, length]`, long, prompt included, is the result.

        The place to warn of what the result lacks. Called before `reset`, and not if the call has failed.
        """

    def reset(self) -> None:
        """The call has ended; forget it."""


class BacktrackingProcessor(LogitsProcessor):
    """A processor that may also take back what was decoded, a different number of tokens in each row.

    It sees to it that a row does not come back to where it was, e.g. by masking in `process`, at that row and length, the
    token that led there. A session in which rows go back without end raises `DecodingError`. Under strategies that need
    "reorder" or "level" nothing is taken back, and `Context.backtracks` is False: refuse in `begin`, or do without.
    """

    @property
    def max_backtrack(self) -> int | None:
        """How many tokens of a row this processor may take back; None for any number, 0 for none, for free.

        Counted from the furthest end that the row has had: what lies before that is final, is streamed, and is
        not taken back, whatever `backtrack` says. Read once, before `begin`.
        """
        return 0

    def backtrack(self, history: History) -> Tensor | None:
        """How many of its last tokens each row should take back.

        Asked behind each token that a row takes, once for each position of a draft, before criteria judge it: a
        token that is taken back ends no row. `accept` was told of the tokens before that one. A question, which
        changes no state: a draft's later positions may be dropped.

        Args:
            history: the rows with that token. Rows that are done are asked about as well, and stay as they are.

        Returns:
            `[rows]`, long, on the device of the tokens, 0 for a row that stays; None if all stay. Of several
            processors' answers the largest counts. The prompt stays.
        """
        return None

    def backtracked(self, history: History, counts: Tensor) -> None:
        """Rows may have gone back; `rollback` has been told before.

        Args:
            history: the rows as they are now; behind each row's end still stand the tokens that it took back.
            counts: `[rows]`, long: how many tokens each row took back as this processor asked; 0 for rows that
                stay, and for rows that went further back as another one asked.
        """
