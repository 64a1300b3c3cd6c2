"""A budget for thinking: after so many tokens inside <think>, its end is forced.

A row thinks where what begins thinking occurs later than what last ended it, in the prompt or the output. With t the
tokens since, the budget b and the end e, the next token is forced where t >= b: the one that goes on spelling e behind
as much of it as the row ends in already, so an end that the model has begun by itself is completed, not begun again.
Forcing sets the token's score to 0 and all others to -inf. A budget of 0 ends thinking as soon as it begins.

Markers that are text are found in the text, however it was tokenized; markers that are ids, in the ids. Where one is
text and the other ids, the ids stand for the text that they spell. Nested thinking counts from the innermost beginning.
Not supported: budgets of their own for each row.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode
from genmode.text import token_bytes

from ..order import preceding
from ..row_ops import as_ints, mask_rows
from .thinking_markers import IdReader, TextReader

Marker = Annotated[str | tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(as_ints)]


class ThinkingBudget(genmode.LogitsProcessor):
    """End thinking after so many tokens.

    Stage constraint, behind all others; reads tokens alone; writes in place; `[rows, vocab]` of any floating
    type. Raises `ParameterError` for text without a tokenizer, text that no tokens spell, and ids outside the
    vocabulary.
    """

    contract_version = 1
    name = "thinking_budget"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("thinking_budget")
    traits = frozenset({genmode.Trait.FORCES})

    class Params(genmode.Params):
        thinking_budget: int | None = Field(None, ge=0, description="most tokens inside thinking; no limit if unset")
        think_start: Marker = Field("<think>", description="what begins thinking: text, or ids")
        think_end: Marker = Field("</think>", description="what ends thinking: text, or ids")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._reader: IdReader | TextReader | None = None

    def begin(self, context: genmode.Context) -> None:
        if self.params.thinking_budget is None:
            return
        markers = {key: getattr(self.params, key) for key in ("think_start", "think_end")}
        for key, marker in markers.items():
            check(marker, context, key)
        if any(isinstance(marker, str) for marker in markers.values()):
            texts = token_bytes(context.tokenizer)[: context.vocab_size]
            start, end = (
                marker.encode() if isinstance(marker, str) else b"".join(texts[token] for token in marker)
                for marker in markers.values()
            )
            self._reader = TextReader(start, end, texts, context)
        else:
            self._reader = IdReader(list(markers["think_start"]), list(markers["think_end"]), context.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._reader is None:
            return scores
        thinks, since, token = self._reader.read(history)
        over = thinks & (since >= self.params.thinking_budget)
        if not mask_rows(scores, over):
            return scores
        token = token[:, None]
        return scores.scatter_(1, token, scores.gather(1, token).masked_fill_(over[:, None], 0.0))

    def accept(self, tokens: Tensor) -> None:
        if isinstance(self._reader, TextReader):
            self._reader.accept(tokens)

    def reorder(self, rows: Tensor) -> None:
        if isinstance(self._reader, TextReader):
            self._reader.reorder(rows)

    def rollback(self, counts: Tensor) -> None:
        if isinstance(self._reader, TextReader):
            self._reader.rollback(counts)

    def reset(self) -> None:
        self._reader = None


def check(marker: str | tuple[int, ...], context: genmode.Context, key: str) -> None:
    """Raises `ParameterError` for a marker that cannot occur."""
    if isinstance(marker, str):
        if context.tokenizer is None:
            raise genmode.ParameterError(f"{key}: {marker!r} is text and there is no tokenizer; pass tokenizer= or ids")
        return
    outside = [token for token in marker if token >= context.vocab_size]
    if outside:
        raise genmode.ParameterError(f"{key}: {outside} outside the vocabulary of {context.vocab_size}")
