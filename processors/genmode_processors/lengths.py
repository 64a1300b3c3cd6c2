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

from .order import preceding
from .rows import as_ints, expand_rows, in_vocabulary, write


class EndProcessor(genmode.LogitsProcessor):
    """What the processors here share: the end-of-sequence tokens, and the column where counting begins.

    Not a component by itself.
    """

    stage = genmode.Stage.CONSTRAINT

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._given: Any = None  # end-of-sequence ids of a transformers object
        self._prompt: int | None = None  # its length of the prompt
        self._ends: Tensor | None = None

    def begin(self, session: genmode.Session) -> None:
        ids = session.eos_token_ids if self._given is None else as_ints(self._given)
        self._ends = in_vocabulary(ids, session.vocab_size, session.device)

    def reset(self) -> None:
        self._ends = None

    def ends(self) -> Tensor:
        """`[count]`, long."""
        if self._ends is None:
            raise RuntimeError(f"{self.name}: process was called before begin")
        return self._ends

    def start(self, history: genmode.History) -> int:
        """The column of the first new token."""
        return history.prompt if self._prompt is None else self._prompt

    def keep_going(self, scores: Tensor, history: genmode.History, length: int) -> Tensor:
        """Mask the end in rows shorter than `length`."""
        if history.uniform is None:
            return write(scores, self.ends(), -torch.inf, history.lengths < length)
        return write(scores, self.ends(), -torch.inf) if history.uniform < length else scores


class MinLength(EndProcessor):
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
    def adopt(cls, processor: Any) -> MinLength:
        """Length and end-of-sequence tokens of the transformers object."""
        own = cls(min_length=processor.min_length)
        own._given = processor.eos_token_id
        return own

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return self.keep_going(scores, history, self.params.min_length)


class MinNewTokens(EndProcessor):
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
    def adopt(cls, processor: Any) -> MinNewTokens:
        """Length, prompt and end-of-sequence tokens of the transformers object."""
        own = cls(min_new_tokens=processor.min_new_tokens)
        own._given, own._prompt = processor.eos_token_id, processor.prompt_length_to_skip
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

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._least: Tensor | None = None  # [rows]

    def begin(self, session: genmode.Session) -> None:
        super().begin(session)
        least = torch.tensor(self.params.row_min_new_tokens, device=session.device)
        self._least = expand_rows(least, session.rows, "row_min_new_tokens")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._least is None:
            raise RuntimeError(f"{self.name}: process was called before begin")
        short = history.lengths - history.prompt < self._least
        return write(scores, self.ends(), -torch.inf, short)

    def reorder(self, rows: Tensor) -> None:
        if self._least is not None:
            self._least = self._least[rows]


class ExponentialDecayLength(EndProcessor):
    """Make the end of sequence more likely with every token beyond a number of new tokens.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Native equal
    of transformers' `ExponentialDecayLengthPenalty`.
    """

    contract_version = 1
    name = "exponential_decay_length"
    after = preceding("exponential_decay_length")
    replaces = ("ExponentialDecayLengthPenalty",)

    class Params(genmode.Params):
        exponential_decay_length_penalty: tuple[int, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
            None, description="new tokens from which on, and factor by which, the end grows more likely"
        )

    @classmethod
    def adopt(cls, processor: Any) -> ExponentialDecayLength:
        """Start (with the prompt), factor and end-of-sequence tokens of the transformers object."""
        own = cls(exponential_decay_length_penalty=(0, processor.regulation_factor))
        own._given, own._prompt = processor.eos_token_id, processor.regulation_start
        return own

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self.params.exponential_decay_length_penalty is None:
            return scores
        after, factor = self.params.exponential_decay_length_penalty
        start = self.start(history) + after
        largest = torch.finfo(scores.dtype).max
        if history.uniform is not None and history.uniform <= start:
            return scores
        score = scores.index_select(1, self.ends())
        if history.uniform is not None:
            penalty = score.abs() * power(factor, history.uniform - start, largest)
        else:
            steps = (history.lengths - start).clamp_(min=0).double()
            growth = (factor**steps - 1).clamp_(max=largest).to(scores.dtype)
            penalty = score.abs() * growth[:, None]
        penalty.masked_fill_(~score.isfinite(), 0.0)
        return scores.index_copy_(1, self.ends(), (score + penalty).clamp_(max=largest))


def power(factor: float, exponent: int, largest: float) -> float:
    """`factor ** exponent - 1`, at most `largest`."""
    try:
        return min(factor**exponent - 1, largest)
    except OverflowError:
        return largest
