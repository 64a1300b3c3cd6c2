"""Penalties on tokens that have occurred.

Repetition (Keskar et al. 2019, arXiv:1909.05858): a token that occurs in the range has its score divided by
the penalty if it is not negative, and multiplied by it if it is. Encoder repetition does so with the inverse,
on the tokens of the encoder's input. Presence and frequency, as OpenAI's API defines them, with `c[v]` how
often token v occurs in the range:

    score[v] -= presence_penalty * (c[v] > 0)
    score[v] -= frequency_penalty * c[v]

All are functions of the token alone, so ties stay ties between tokens with equal counts; masked tokens stay
masked (-inf), and a row whose every token is masked stays so. Padding never counts, other than in transformers. Ids beyond the scores' vocabulary are skipped. Rows are read off the
history at every step, so beams and drafting need no state. Not supported: a penalty of its own for each row.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import genmode

from ..begun import Begun
from ..encoder_tokens import encoder_tokens, from_call
from ..order import preceding
from ..row_ops import columns, expand_rows, shortest

Scope = Literal["all", "prompt", "output"]
SCOPE = (
    "where penalties count tokens: prompt, output or all; by default all for repetition, output for presence "
    "and frequency"
)
LAST_N = "penalties count only so many tokens at the end of their scope; 0 for all"


def in_range(history: genmode.History, scope: Scope, last_n: int) -> tuple[Tensor, Tensor]:
    """The tokens that a penalty counts.

    Args:
        history: the tokens so far.
        scope: the prompt, what was decoded, or both.
        last_n: only so many tokens at the end of the scope; 0 for all of it.

    Returns:
        `[rows, count]`, long, and which of them are in the range, `[rows, count]`, bool.
    """
    tokens, inside = history.tokens, history.inside
    first = history.prompt if scope == "output" else 0
    end = history.prompt if scope == "prompt" else tokens.shape[1]
    level = min(end, shortest(history))  # behind this column some rows may have ended
    if last_n:
        first = max(first, level - last_n)
    if last_n and level < end:
        inside = inside & (columns(tokens) >= history.lengths[:, None] - last_n)
    return tokens[:, first:end], inside[:, first:end]


def penalise(scores: Tensor, tokens: Tensor, inside: Tensor, factor: float) -> Tensor:
    """Apply the repetition penalty to each token of `tokens` `[rows, count]` that is inside, in place.

    Of `score * factor` and `score / factor` the rule takes the smaller, if the factor is above 1, so the least
    of what several occurrences of a token bring is the same as what each brings; below 1 it is the largest.
    """
    score = scores.gather(1, tokens)
    if factor >= 1:
        changed, keep, reduce = torch.minimum(score * factor, score / factor), torch.inf, "amin"
    else:
        changed, keep, reduce = torch.maximum(score * factor, score / factor), -torch.inf, "amax"
    return scores.scatter_reduce_(1, tokens, torch.where(inside, changed, keep), reduce)


class RepetitionPenalty(genmode.LogitsProcessor, genmode.StandIn):
    """Make tokens that have occurred less likely (above 1) or more likely (below 1).

    Stage penalty; reads tokens alone; writes in place; `[rows, vocab]` of any floating type.
    Native equal of transformers' `RepetitionPenaltyLogitsProcessor`.
    """

    contract_version = 1
    name = "repetition_penalty"
    paper = "Keskar et al. 2019, CTRL, arXiv:1909.05858"
    stage = genmode.Stage.PENALTY
    after = preceding("repetition_penalty")
    replaces = ("RepetitionPenaltyLogitsProcessor",)

    class Params(genmode.Params):
        repetition_penalty: float = Field(1.0, gt=0, description="divides scores of tokens that occurred; 1 is none")
        penalty_scope: Scope | None = Field(None, description=SCOPE)
        penalty_last_n: int = Field(0, ge=0, description=LAST_N)

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._adopted = False
        self._given: int | Tensor = 0  # a transformers object's: columns before this count for nothing
        self._ignored: Tensor | None = None  # [rows, 1], the same where it differs between rows

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> RepetitionPenalty:
        """Penalty and `prompt_ignore_length` (a number, or one for each row) of the transformers object."""
        own = cls(repetition_penalty=theirs.penalty)
        own._adopted = True
        if theirs.prompt_ignore_length is not None:
            own._given = theirs.prompt_ignore_length
        return own

    def begin(self, context: genmode.Context) -> None:
        if isinstance(self._given, Tensor):
            given = expand_rows(self._given, context.rows, f"prompt_ignore_length of {self.name}")
            self._ignored = given.to(context.device)[:, None] * min(context.prompt_length, 1)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        params = self.params
        if params.repetition_penalty == 1:
            return scores
        if self._adopted:
            tokens, inside = self._as_transformers(history)
        else:
            tokens, inside = in_range(history, params.penalty_scope or "all", params.penalty_last_n)
        inside = inside & (tokens < scores.shape[1])
        return penalise(scores, tokens.clamp(0, scores.shape[1] - 1), inside, params.repetition_penalty)

    def reorder(self, rows: Tensor) -> None:
        if self._ignored is not None:
            self._ignored = self._ignored[rows]

    def reset(self) -> None:
        self._ignored = None

    def _as_transformers(self, history: genmode.History) -> tuple[Tensor, Tensor]:
        first = 0 if isinstance(self._given, Tensor) or not history.prompt else self._given  # embeddings have no tokens
        tokens, inside = history.tokens[:, first:], history.inside[:, first:]
        return tokens, inside if self._ignored is None else inside & (columns(tokens) >= self._ignored)


class EncoderRepetitionPenalty(genmode.LogitsProcessor, genmode.StandIn):
    """Make the tokens of the encoder's input (of the prompt, if there is no encoder) more likely above 1.

    Stage penalty, before the repetition penalty; writes in place; `[rows, vocab]` of any floating type.
    Native equal of transformers' `EncoderRepetitionPenaltyLogitsProcessor`.
    """

    contract_version = 1
    name = "encoder_repetition_penalty"
    stage = genmode.Stage.PENALTY
    after = preceding("encoder_repetition_penalty")
    replaces = ("EncoderRepetitionPenaltyLogitsProcessor",)

    class Params(genmode.Params):
        encoder_repetition_penalty: float = Field(
            1.0, gt=0, description="multiplies scores of the input's tokens; 1 is none"
        )

    _tokens: Begun[Tensor] = Begun()  # [rows, input length]
    _known: Begun[Tensor] = Begun()  # [rows, input length], bool: in the vocabulary

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._factor = 1 / self.params.encoder_repetition_penalty
        self._given: Tensor | None = None

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> EncoderRepetitionPenalty:
        """The transformers object keeps the inverse of the penalty, and the input."""
        own = cls(encoder_repetition_penalty=1 / theirs.penalty)
        own._factor, own._given = theirs.penalty, theirs.encoder_input_ids
        return own

    def begin(self, context: genmode.Context) -> None:
        given = None if from_call(context, "encoder_repetition_penalty") else self._given
        tokens = encoder_tokens(given, context, self.name)
        self._known = (tokens >= 0) & (tokens < context.vocab_size)
        self._tokens = tokens.clamp(0, context.vocab_size - 1)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return penalise(scores, self._tokens, self._known, self._factor)

    def reorder(self, rows: Tensor) -> None:
        self._tokens, self._known = self._tokens[rows], self._known[rows]

    def reset(self) -> None:
        self._tokens = self._known = None


class PresencePenalty(genmode.LogitsProcessor):
    """Subtract a number from the score of each token that occurred.

    Stage penalty; reads tokens alone; writes in place; `[rows, vocab]` of any floating type.
    """

    contract_version = 1
    name = "presence_penalty"
    paper = "OpenAI API reference, frequency and presence penalties"
    stage = genmode.Stage.PENALTY
    after = preceding("presence_penalty")

    class Params(genmode.Params):
        presence_penalty: float = Field(0.0, description="taken off the score of each token that occurred")
        penalty_scope: Scope | None = Field(None, description=SCOPE)
        penalty_last_n: int = Field(0, ge=0, description=LAST_N)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        params = self.params
        if params.presence_penalty == 0:
            return scores
        tokens, inside = in_range(history, params.penalty_scope or "output", params.penalty_last_n)
        inside = inside & (tokens < scores.shape[1])
        index = tokens.clamp(0, scores.shape[1] - 1)
        changed = scores.gather(1, index) - params.presence_penalty
        keep, reduce = (torch.inf, "amin") if params.presence_penalty > 0 else (-torch.inf, "amax")
        return scores.scatter_reduce_(1, index, torch.where(inside, changed, keep), reduce)


class FrequencyPenalty(genmode.LogitsProcessor):
    """Subtract a number from a token's score for each time that it occurred.

    Stage penalty; reads tokens alone; writes in place; `[rows, vocab]` of any floating type. Keeps a scratch
    buffer of the size of the scores, whose contents carry nothing over from step to step.
    """

    contract_version = 1
    name = "frequency_penalty"
    paper = "OpenAI API reference, frequency and presence penalties"
    stage = genmode.Stage.PENALTY
    after = preceding("frequency_penalty")

    class Params(genmode.Params):
        frequency_penalty: float = Field(0.0, description="taken off the score for each time that the token occurred")
        penalty_scope: Scope | None = Field(None, description=SCOPE)
        penalty_last_n: int = Field(0, ge=0, description=LAST_N)

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._counts: Tensor | None = None  # [rows, vocab], float32, zero between steps

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        params = self.params
        if params.frequency_penalty == 0:
            return scores
        tokens, inside = in_range(history, params.penalty_scope or "output", params.penalty_last_n)
        inside = inside & (tokens < scores.shape[1])
        index = tokens.clamp(0, scores.shape[1] - 1)
        counts = self._zeros(scores)
        counts.scatter_add_(1, index, inside.to(counts.dtype))
        count = counts.gather(1, index)  # [rows, tokens], a function of the token alone
        counts.scatter_(1, index, 0.0)
        penalty = params.frequency_penalty * count
        return scores.scatter_(1, index, scores.gather(1, index) - penalty.to(scores.dtype))

    def reset(self) -> None:
        self._counts = None

    def _zeros(self, scores: Tensor) -> Tensor:
        kept = self._counts
        if kept is None or kept.shape != scores.shape or kept.device != scores.device:
            kept = self._counts = torch.zeros(scores.shape, dtype=torch.float32, device=scores.device)
        return kept
