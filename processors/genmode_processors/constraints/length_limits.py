"""How many tokens a row has: minimal lengths, and an end that grows more likely.

A minimal length masks the end-of-sequence tokens (-inf) while a row is shorter. The decay, with s the start
and f the factor, raises the score of each end-of-sequence token once a row has l > s new tokens:

    score += |score| * (f ** (l - s) - 1)

Masked scores stay masked. Where the power, or the score, outgrows the scores' type it is the largest number
of that type, so nothing becomes infinite (transformers raises OverflowError, or yields inf). Lengths in
transformers' keys include the prompt and its padding, except for new tokens. Rows are read off the history;
beams need the order of the rows only where rows have minima of their own. A row's maximum is a criterion,
`row_limits`. End-of-sequence ids outside the vocabulary are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode

from ..begun import Begun
from ..order import preceding
from ..row_ops import as_ints, expand_rows, in_vocabulary, shortest, write


class EndProcessor(genmode.LogitsProcessor):
    """What the processors here share: the end-of-sequence tokens, and the column where counting begins.

    Not a component by itself.
    """

    stage = genmode.Stage.CONSTRAINT
    ends: Begun[Tensor] = Begun()
    """`[count]`, long: the ids that end a row, of those that the model can choose."""

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._given: Any = None  # end-of-sequence ids of a transformers object
        self._prompt: int | None = None  # its length of the prompt

    def begin(self, context: genmode.Context) -> None:
        ids = context.eos_token_ids if self._given is None else as_ints(self._given)
        self.ends = in_vocabulary(ids, context.vocab_size, context.device)

    def reset(self) -> None:
        self.ends = None

    def start(self, history: genmode.History) -> int:
        """The column of the first new token."""
        return history.prompt if self._prompt is None else self._prompt

    def keep_going(self, scores: Tensor, history: genmode.History, length: int) -> Tensor:
        """Mask the end in rows shorter than `length`."""
        if shortest(history) >= length:
            return scores
        rows = history.lengths < length if history.tokens.shape[1] >= length else None
        return write(scores, self.ends, -torch.inf, rows)


class MinLength(EndProcessor, genmode.StandIn):
    """No end of sequence while a row, prompt included, is shorter than `min_length`.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Native equal
    of transformers' `MinLengthLogitsProcessor`.
    """

    contract_version = 1
    name = "min_length"
    after = preceding("min_length")
    replaces = ("MinLengthLogitsProcessor",)

    skip_checks: ClassVar[Mapping[str, str]] = {
        "left_padding": "left padding counts as part of a row's length, as in transformers",
    }

    class Params(genmode.Params):
        min_length: int = Field(0, ge=0, description="shortest row, in tokens, prompt included")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> MinLength:
        """Length and end-of-sequence tokens of the transformers object."""
        own = cls(min_length=theirs.min_length)
        own._given = theirs.eos_token_id
        return own

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return self.keep_going(scores, history, self.params.min_length)


class MinNewTokens(EndProcessor, genmode.StandIn):
    """No end of sequence before `min_new_tokens` new tokens.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Native equal
    of transformers' `MinNewTokensLengthLogitsProcessor`.
    """

    contract_version = 1
    name = "min_new_tokens"
    after = preceding("min_new_tokens")
    replaces = ("MinNewTokensLengthLogitsProcessor",)

    class Params(genmode.Params):
        min_new_tokens: int = Field(0, ge=0, description="fewest new tokens")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> MinNewTokens:
        """Length, prompt and end-of-sequence tokens of the transformers object."""
        own = cls(min_new_tokens=theirs.min_new_tokens)
        own._given, own._prompt = theirs.eos_token_id, theirs.prompt_length_to_skip
        return own

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return self.keep_going(scores, history, self.start(history) + self.params.min_new_tokens)


class RowMinNewTokens(EndProcessor):
    """No end of sequence before a number of new tokens that each row, or input, has for itself.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Raises
    `ParameterError` unless there is one number for each row or for each input.
    """

    contract_version = 1
    name = "row_min_new_tokens"
    after = preceding("row_min_new_tokens")

    class Params(genmode.Params):
        row_min_new_tokens: Annotated[
            tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(as_ints)
        ] = Field((0,), description="fewest new tokens, one number for each row or input")

    _least: Begun[Tensor] = Begun()  # [rows]

    def begin(self, context: genmode.Context) -> None:
        super().begin(context)
        least = torch.tensor(self.params.row_min_new_tokens, device=context.device)
        self._least = expand_rows(least, context.rows, "row_min_new_tokens")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        short = history.lengths - history.prompt < self._least
        return write(scores, self.ends, -torch.inf, short)

    def reorder(self, rows: Tensor) -> None:
        self._least = self._least[rows]

    def reset(self) -> None:
        super().reset()
        self._least = None


class ExponentialDecayLength(EndProcessor, genmode.StandIn):
    """Make the end of sequence more likely with every token beyond a number of new tokens.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Native equal
    of transformers' `ExponentialDecayLengthPenalty`.
    """

    contract_version = 1
    name = "exponential_decay_length"
    after = preceding("exponential_decay_length")
    replaces = ("ExponentialDecayLengthPenalty",)

    class Params(genmode.Params):
        exponential_decay_length_penalty: tuple[int, Annotated[float, Field(gt=0)]] | None = Field(
            None, description="new tokens from which on, and factor by which, the end grows more likely"
        )

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._growth: Tensor | None = None  # [more than the longest row]: f ** (l - s) - 1, by the row's length

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> ExponentialDecayLength:
        """Start (with the prompt), factor and end-of-sequence tokens of the transformers object."""
        own = cls(exponential_decay_length_penalty=(0, theirs.regulation_factor))
        own._given, own._prompt = theirs.eos_token_id, theirs.regulation_start
        return own

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self.params.exponential_decay_length_penalty is None:
            return scores
        width = history.tokens.shape[1]
        if width <= self.start(history) + self.params.exponential_decay_length_penalty[0]:
            return scores
        largest = torch.finfo(scores.dtype).max
        if self._growth is None or len(self._growth) <= width or self._growth.dtype != scores.dtype:
            self._growth = self._table(2 * width, scores, self.start(history))
        score = scores.index_select(1, self.ends)
        penalty = score.abs() * self._growth.index_select(0, history.lengths)[:, None]
        penalty.masked_fill_(~score.isfinite(), 0.0)
        return scores.index_copy_(1, self.ends, (score + penalty).clamp_(max=largest))

    def reset(self) -> None:
        super().reset()
        self._growth = None

    def _table(self, size: int, scores: Tensor, start: int) -> Tensor:
        """`[size]`, of the scores' type and device."""
        after, factor = self.params.exponential_decay_length_penalty
        steps = (torch.arange(size, device=scores.device) - start - after).clamp_(min=0).double()
        growth: Tensor = factor**steps - 1
        return growth.clamp_(max=torch.finfo(scores.dtype).max).to(scores.dtype)
