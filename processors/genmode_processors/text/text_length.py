"""How long a row's output is as text: in characters and in sentences.

The output has as many characters as bytes that begin one in UTF-8, over all its tokens. A sentence ends
with a token whose text, closing quotes and brackets aside, ends in one of `. ! ? … 。 ！ ？`; a token of such
signs alone right behind such an end belongs to the same sentence. A sentence that ends inside a token, with
white space behind it, counts too. "3.14" in three tokens therefore ends one. Special tokens have no length.

A minimum masks the end-of-sequence tokens while a row is shorter. The maximum of characters masks every
token that would exceed it, and forces the end where it is reached, so no row is longer; the maximum of
sentences forces the end behind the last. Where minimum and maximum contradict each other, the maximum wins.
Forcing sets the end's scores to 0 and all others to -inf; as with `forced_eos_token_id`, the end then comes even
where another constraint bans it, such as the last token of a banned sequence. Counts are read off the history, so beams and
drafting need no state. Not supported: limits of their own for each row; characters split over tokens may be
cut at the maximum.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.text import CLOSING, SENTENCE_END, SENTENCE_SIGNS, plain_bytes

from ..begun import Begun
from ..order import preceding
from ..row_ops import force, in_vocabulary, write

INNER = re.compile(rf"[.!?…。！？]+{CLOSING}\s+(?=\S)|[。！？]{CLOSING}(?=[^\s。！？])")


class TextLength(genmode.LogitsProcessor):
    """Bound the output's length in characters and sentences.

    Stage constraint, behind the other constraints on the end; reads tokens alone; writes in place;
    `[rows, vocab]` of any floating type. Raises `ParameterError` without a tokenizer, without an
    end-of-sequence token, and for a minimum above its maximum.
    """

    contract_version = 1
    name = "text_length"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("text_length")

    class Params(genmode.Params):
        min_characters: int = Field(0, ge=0, description="fewest characters of the output")
        max_characters: int | None = Field(None, ge=0, description="most characters of the output")
        min_sentences: int = Field(0, ge=0, description="fewest sentences of the output")
        max_sentences: int | None = Field(None, ge=1, description="most sentences of the output")

        @model_validator(mode="after")
        def _ordered(self) -> Any:
            for least, most in (
                (self.min_characters, self.max_characters),
                (self.min_sentences, self.max_sentences),
            ):
                if most is not None and least > most:
                    raise ValueError(f"the minimum, {least}, is above the maximum, {most}")
            return self

    _ends: Begun[Tensor] = Begun()  # [count], end-of-sequence ids
    _characters: Begun[Tensor] = Begun()  # [vocab], int32: characters that each token begins

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._longest = 0  # characters of the longest token
        self._sentences: SentenceTable | None = None

    def begin(self, context: genmode.Context) -> None:
        if context.tokenizer is None:
            raise genmode.ParameterError(f"{self.name} needs the tokenizer; pass tokenizer= to generate")
        self._ends = in_vocabulary(context.eos_token_ids, context.vocab_size, context.device)
        if not len(self._ends):
            raise genmode.ParameterError(f"{self.name} needs an end-of-sequence token; set eos_token_id")
        texts = plain_bytes(context.tokenizer, context.vocab_size, context.eos_token_ids)
        begun = [sum(byte & 0xC0 != 0x80 for byte in text) for text in texts]
        self._characters = torch.tensor(begun, dtype=torch.int32, device=context.device)
        self._longest = max(begun)
        if self.params.min_sentences or self.params.max_sentences is not None:
            self._sentences = SentenceTable(texts, context.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        params, ends, characters = self.params, self._ends, self._characters
        tokens = history.tokens[:, history.prompt :].clamp(0, len(characters) - 1)
        decoded = history.inside[:, history.prompt :]
        length = (characters[tokens] * decoded).sum(1, dtype=torch.int32)  # [rows]
        write(scores, ends, -torch.inf, length < params.min_characters)
        over = torch.zeros_like(length, dtype=torch.bool)
        if self._sentences is not None:
            sentences = self._sentences.ended(tokens, decoded)
            write(scores, ends, -torch.inf, sentences < params.min_sentences)
            if params.max_sentences is not None:
                over = sentences >= params.max_sentences
        if params.max_characters is not None:
            left = params.max_characters - length
            if not host_sync.surely_none(left < self._longest):
                scores = scores.masked_fill_(characters > left[:, None], -torch.inf)
            over = over | (left <= 0)
        return force(scores, ends, over)

    def reset(self) -> None:
        self._ends = self._characters = self._sentences = None


class SentenceTable:
    """What each token says of the ends of sentences."""

    def __init__(self, texts: list[bytes], device: Any) -> None:
        strings = [text.decode(errors="replace") for text in texts]
        inner = [len(INNER.findall(text)) for text in strings]
        self._inner = torch.tensor(inner, device=device)  # [vocab], sentences that end inside the token
        self._closes = torch.tensor([bool(SENTENCE_END.search(text)) for text in strings], device=device)
        self._signs = torch.tensor([bool(SENTENCE_SIGNS.match(text)) for text in strings], device=device)

    def ended(self, tokens: Tensor, decoded: Tensor) -> Tensor:
        """Sentences that have ended, `[rows]`, long.

        Args:
            tokens: `[rows, count]`, long, within the vocabulary.
            decoded: `[rows, count]`, bool, which of them count.
        """
        closes = self._closes[tokens] & decoded
        last = closes.clone()  # [rows, count], closes and does not go on with the signs before it
        last[:, 1:] &= ~(self._signs[tokens[:, 1:]] & closes[:, :-1])
        return (last + self._inner[tokens] * decoded).sum(1)
