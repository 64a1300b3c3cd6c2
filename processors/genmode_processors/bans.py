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

from .bias import Sequence, SequenceTable
from .order import preceding
from .rows import as_ints, in_vocabulary, write

Tokens = Annotated[tuple[int, ...], BeforeValidator(as_ints)]


class BadWords(genmode.LogitsProcessor):
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

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._adopted: Any = None
        self._table: SequenceTable | None = None

    @classmethod
    def adopt(cls, processor: Any) -> BadWords:
        """The sequences of the transformers object, which has left out end-of-sequence."""
        own = cls(bad_words_ids=list(processor.sequence_bias))
        own._adopted = processor
        return own

    def begin(self, session: genmode.Session) -> None:
        ends = [] if self._adopted is not None else session.eos_token_ids
        more = 0 if self._adopted is None or hasattr(self._adopted, "multi_token_biases") else 1
        banned = {
            tokens: -torch.inf for tokens in self.params.bad_words_ids if not (len(tokens) == 1 and tokens[0] in ends)
        }
        self._table = SequenceTable(banned, session.vocab_size, session.device, "bad_words_ids", more)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._table is None:
            raise RuntimeError(f"{self.name}: process was called before begin")
        return self._table.add(scores, history)

    def reset(self) -> None:
        self._table = None


class SuppressTokens(genmode.LogitsProcessor):
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

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._banned: Tensor | None = None

    @classmethod
    def adopt(cls, processor: Any) -> SuppressTokens:
        """The tokens of the transformers object."""
        return cls(suppress_tokens=processor.suppress_tokens)

    def begin(self, session: genmode.Session) -> None:
        self._banned = in_vocabulary(self.params.suppress_tokens, session.vocab_size, session.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._banned is None:
            raise RuntimeError(f"{self.name}: process was called before begin")
        return write(scores, self._banned, -torch.inf)


class SuppressTokensAtBegin(genmode.LogitsProcessor):
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

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._banned: Tensor | None = None
        self._adopted: int | None = None
        self._length = 0

    @classmethod
    def adopt(cls, processor: Any) -> SuppressTokensAtBegin:
        """Tokens and length of the transformers object."""
        own = cls(begin_suppress_tokens=processor.begin_suppress_tokens)
        own._adopted = processor.begin_index
        return own

    def begin(self, session: genmode.Session) -> None:
        self._banned = in_vocabulary(self.params.begin_suppress_tokens, session.vocab_size, session.device)
        if self._adopted is not None:
            self._length = self._adopted
            return
        prompt = session.history.prompt
        forced = getattr(session.generation_config, "forced_bos_token_id", None) is not None
        self._length = prompt + 1 if forced and prompt <= 1 else prompt

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._banned is None:
            raise RuntimeError(f"{self.name}: process was called before begin")
        if history.uniform is None:
            return write(scores, self._banned, -torch.inf, history.lengths == self._length)
        return write(scores, self._banned, -torch.inf) if history.uniform == self._length else scores
