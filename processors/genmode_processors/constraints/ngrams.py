"""No n-gram twice (Paulus et al. 2017, arXiv:1705.04304; fairseq's `no_repeat_ngram_size`).

With n the size and L a row's length, token v is banned (-inf) if for some window i of n tokens

    x[i .. i+n-2] = x[L-n+1 .. L-1]   and   x[i+n-1] = v

where the windows lie in the row itself, or in the encoder's input. With n = 1 every token that occurred is
banned. The whole row counts, its prompt too; padding is no text, other than in transformers. A row shorter than
n - 1 bans nothing. Where every token of the vocabulary would repeat an n-gram, the row is left as it is: some n-gram
has to come twice (transformers masks all).

The windows are compared by n - 1 shifted comparisons of `[rows, length]`, so a step is linear in the length
and holds no list of n-grams. Rows are read off the history, so drafting needs no state, and beams only the
encoder's input in their order. Ids beyond the scores' vocabulary are skipped. Not supported: a size of its
own for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from ..begun import Begun
from ..encoder_tokens import encoder_tokens, from_call
from ..order import preceding
from ..row_ops import columns, expand_rows, forbid, lower, padded, shortest

LONGEST = 100_000
"""Tokens of an n-gram of the encoder's input; transformers' processor, which is made first, takes time for each."""


def matching(columns: Sequence[Tensor], end: Tensor) -> Tensor:
    """Which windows begin with `end`.

    Args:
        columns: for each of the n - 1 first places of a window, the tokens there, `[rows, windows]`, long.
        end: `[rows, n - 1]`, long.

    Returns:
        `[rows, windows]`, bool.
    """
    same = columns[0] == end[:, :1]
    for place in range(1, len(columns)):
        same.logical_and_(columns[place] == end[:, place : place + 1])
    return same


def spared(banned: Tensor, tokens: Tensor, vocab: int) -> Tensor:
    """`banned` without the rows in which it bans all tokens of the vocabulary.

    Args:
        banned: `[rows, windows]`, bool.
        tokens: `[rows, windows]`, long: the token that each window bans.
    """
    if tokens.shape[1] < vocab:
        return banned
    hit = banned.new_zeros(len(banned), vocab + 1)
    hit.scatter_(1, tokens.where(banned, vocab).clamp(max=vocab), True)
    return banned & ~hit[:, :vocab].all(1, keepdim=True)


class NoRepeatNgram(genmode.LogitsProcessor, genmode.StandIn):
    """Ban every token that would complete an n-gram which the row already has.

    Stage constraint; reads tokens alone; writes in place; `[rows, vocab]` of any floating type.
    Native equal of transformers' `NoRepeatNGramLogitsProcessor`.
    """

    contract_version = 1
    name = "no_repeat_ngram"
    paper = "Paulus et al. 2017, arXiv:1705.04304"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("no_repeat_ngram")
    replaces = ("NoRepeatNGramLogitsProcessor",)

    class Params(genmode.Params):
        no_repeat_ngram_size: int = Field(0, ge=0, description="n-grams of this size occur once; 0 is off")

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> NoRepeatNgram:
        """The size of the transformers object."""
        return cls(no_repeat_ngram_size=theirs.ngram_size)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        size: int = self.params.no_repeat_ngram_size
        tokens = history.tokens
        count = tokens.shape[1] - size + 1  # windows
        if size == 0 or count <= 0:
            return scores
        places = [tokens[:, place : place + count] for place in range(size)]
        banned = (
            matching(places[:-1], history.tail(size - 1)) if size > 1 else torch.ones_like(places[0], dtype=torch.bool)
        )
        if shortest(history) < tokens.shape[1]:
            banned.logical_and_(columns(banned) + size <= history.lengths[:, None])
        if padded(history):
            banned.logical_and_(columns(banned) >= history.starts[:, None])
        return forbid(scores, places[-1], spared(banned, places[-1], scores.shape[1]))


class EncoderNoRepeatNgram(genmode.LogitsProcessor, genmode.StandIn):
    """Ban every token that would complete an n-gram of the encoder's input (of the prompt, without encoder).

    Stage constraint; reads tokens alone; writes in place; `[rows, vocab]` of any floating type. Native
    equal of transformers' `EncoderNoRepeatNGramLogitsProcessor`.
    """

    contract_version = 1
    name = "encoder_no_repeat_ngram"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("encoder_no_repeat_ngram")
    replaces = ("EncoderNoRepeatNGramLogitsProcessor",)

    class Params(genmode.Params):
        encoder_no_repeat_ngram_size: int = Field(
            0, ge=0, le=LONGEST, description="n-grams of this size in the input do not occur in the output; 0 is off"
        )

    _limits: Begun[tuple[Tensor, Tensor]] = Begun()  # -inf and +inf, on the device

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._given: Tensor | None = None  # [inputs, windows, n], a transformers object's n-grams
        self._places: list[Tensor] = []  # n times [rows, windows]
        self._known: Tensor | None = None  # [rows, windows], bool: can the last token be chosen; None if all can

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> EncoderNoRepeatNgram:
        """The n-grams of the transformers object: for each input, a dict from n-1 tokens to what followed."""
        own = cls(encoder_no_repeat_ngram_size=theirs.ngram_size)
        found = [
            [(*prefix, last) for prefix, lasts in ngrams.items() for last in dict.fromkeys(lasts)]
            for ngrams in theirs.generated_ngrams
        ]
        nothing = (-1,) * theirs.ngram_size  # begins with no token and ends in none
        count = max(map(len, found))
        padded = [ngrams + [nothing] * (count - len(ngrams)) for ngrams in found]
        own._given = torch.tensor(padded, dtype=torch.long).view(len(found), count, theirs.ngram_size)
        return own

    def begin(self, context: genmode.Context) -> None:
        size = self.params.encoder_no_repeat_ngram_size
        if size == 0:
            return
        if self._given is not None and not from_call(context, "encoder_no_repeat_ngram_size"):
            windows = expand_rows(self._given, context.rows, f"input of {self.name}").to(context.device)
        else:
            tokens = encoder_tokens(None, context, self.name)
            enough = tokens.shape[1] >= size
            windows = tokens.unfold(1, size, 1) if enough else tokens.new_empty(len(tokens), 0, size)
        *places, last = windows.unbind(2)
        known = (windows >= 0).all(2) & (last < context.vocab_size)
        self._known = None if bool(known.all()) else known
        self._places = [*(place.contiguous() for place in places), last.clamp(0, context.vocab_size - 1)]
        low, high = torch.tensor([-torch.inf, torch.inf], device=context.device).unbind()
        self._limits = (low, high)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        size = self.params.encoder_no_repeat_ngram_size
        if size == 0:
            return scores
        limits = self._limits
        *places, last = self._places
        banned = matching(places, history.tail(size - 1)) if places else last >= 0
        if self._known is not None:
            banned.logical_and_(self._known)
        if shortest(history) < size - 1 or padded(history):
            banned.logical_and_((history.lengths - history.starts)[:, None] >= size - 1)
        return lower(scores, last, torch.where(spared(banned, last, scores.shape[1]), *limits))

    def reorder(self, rows: Tensor) -> None:
        self._places = [place[rows] for place in self._places]
        self._known = None if self._known is None else self._known[rows]

    def reset(self) -> None:
        self._places, self._known, self._limits = [], None, None
