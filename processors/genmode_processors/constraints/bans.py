"""Tokens and sequences of tokens that must not occur.

A ban sets scores to -inf: of single tokens at every step or at the first, and of the last token of a banned
sequence wherever the row ends in the rest of it. Ties among the other tokens stay ties. A ban can mask every
token of a row: its scores are then all -inf, never NaN.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode

from ..begun import Begun
from ..order import preceding
from ..row_ops import as_ints, in_vocabulary, shortest, write
from .sequence_bias import Sequence, SequenceTable

Tokens = Annotated[tuple[int, ...], BeforeValidator(as_ints)]


class BadWords(genmode.LogitsProcessor, genmode.StandIn):
    """Ban sequences of tokens.

    Stage constraint; reads tokens alone; writes in place; `[rows, vocab]` of any floating type. A sequence
    that is one end-of-sequence token is left out. Raises `ParameterError` for tokens outside the vocabulary.
    Native equal of transformers' `NoBadWordsLogitsProcessor`, down to the release's rule on short rows (see
    `SequenceBias`).
    """

    contract_version = 1
    name = "bad_words"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("bad_words")
    replaces = ("NoBadWordsLogitsProcessor",)

    class Params(genmode.Params):
        bad_words_ids: tuple[Sequence, ...] = Field((), description="lists of tokens that do not occur")

    _table: Begun[SequenceTable] = Begun()

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._adopted: Any = None

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> BadWords:
        """The sequences of the transformers object, which has left out end-of-sequence."""
        own = cls(bad_words_ids=list(theirs.sequence_bias))
        own._adopted = theirs
        return own

    def begin(self, context: genmode.Context) -> None:
        ends = [] if self._adopted is not None else context.eos_token_ids
        more = 0 if self._adopted is None or hasattr(self._adopted, "multi_token_biases") else 1
        banned = {
            tokens: -torch.inf for tokens in self.params.bad_words_ids if not (len(tokens) == 1 and tokens[0] in ends)
        }
        self._table = SequenceTable(banned, context.vocab_size, context.device, "bad_words_ids", more)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return self._table.add(scores, history)

    def reset(self) -> None:
        self._table = None


class SuppressTokens(genmode.LogitsProcessor, genmode.StandIn):
    """Ban single tokens.

    Stage constraint; reads nothing; writes in place; `[rows, vocab]` of any floating type. Ids outside the
    vocabulary cannot be chosen anyway and are ignored, as in transformers. Native equal of transformers'
    `SuppressTokensLogitsProcessor`.
    """

    contract_version = 1
    name = "suppress_tokens"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("suppress_tokens")
    replaces = ("SuppressTokensLogitsProcessor",)

    class Params(genmode.Params):
        suppress_tokens: Tokens = Field((), description="tokens that are never chosen")

    _banned: Begun[Tensor] = Begun()  # [count]

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> SuppressTokens:
        """The tokens of the transformers object."""
        return cls(suppress_tokens=theirs.suppress_tokens)

    def begin(self, context: genmode.Context) -> None:
        self._banned = in_vocabulary(self.params.suppress_tokens, context.vocab_size, context.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return write(scores, self._banned, -torch.inf)

    def reset(self) -> None:
        self._banned = None


class SuppressTokensAtBegin(genmode.LogitsProcessor, genmode.StandIn):
    """Ban single tokens at the first step, or behind a forced beginning-of-sequence token.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Ids outside
    the vocabulary are ignored. Native equal of transformers' `SuppressTokensAtBeginLogitsProcessor`.
    """

    contract_version = 1
    name = "suppress_tokens_at_begin"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("suppress_tokens_at_begin")
    replaces = ("SuppressTokensAtBeginLogitsProcessor",)

    class Params(genmode.Params):
        begin_suppress_tokens: Tokens = Field((), description="tokens that are not chosen first")

    _banned: Begun[Tensor] = Begun()  # [count]

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._adopted: int | None = None
        self._length = 0

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> SuppressTokensAtBegin:
        """Tokens and length of the transformers object."""
        own = cls(begin_suppress_tokens=theirs.begin_suppress_tokens)
        own._adopted = theirs.begin_index
        return own

    def begin(self, context: genmode.Context) -> None:
        self._banned = in_vocabulary(self.params.begin_suppress_tokens, context.vocab_size, context.device)
        if self._adopted is not None:
            self._length = self._adopted
            return
        prompt = context.prompt_length
        forced = getattr(context.generation_config, "forced_bos_token_id", None) is not None
        self._length = prompt + 1 if forced and prompt <= 1 else prompt

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        least, most = shortest(history), history.tokens.shape[1]
        if not least <= self._length <= most:
            return scores
        return write(scores, self._banned, -torch.inf, None if least == most else history.lengths == self._length)

    def reset(self) -> None:
        self._banned = None
