"""A budget for thinking: after so many tokens inside <think>, its end is forced.

A row thinks where a sequence that begins thinking occurs later than the last one that ends it, in the
prompt or the output. With t the tokens since, the budget b and the end e[0 .. n-1], the next token is
forced where t >= b: it is e[k], with k the largest number below n such that the row ends in e[0 .. k-1] (so
an end that the model has begun by itself is completed, not begun again). Forcing sets the token's score to
0 and all others to -inf. A budget of 0 ends thinking as soon as it begins. Everything is read off the
history, one comparison of `[rows, length]` for each token of the two sequences, so beams and drafting need
no state. Not supported: budgets of their own for each row; nested thinking counts from the innermost
beginning.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode

from ..order import preceding
from ..row_ops import as_ints, columns, mask_rows

Marker = Annotated[str | tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(as_ints)]


class ThinkingBudget(genmode.LogitsProcessor):
    """End thinking after so many tokens.

    Stage constraint, behind all others; reads tokens alone; writes in place; `[rows, vocab]` of any floating
    type. Raises `ParameterError` for text without a tokenizer, text that the tokenizer does not know, and ids
    outside the vocabulary.
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
        self._start: list[int] = []
        self._end: list[int] = []
        self._forced: Tensor | None = None  # [n], long

    def begin(self, context: genmode.Context) -> None:
        if self.params.thinking_budget is None:
            return
        self._start = marker_ids(self.params.think_start, context, "think_start")
        self._end = marker_ids(self.params.think_end, context, "think_end")
        self._forced = torch.tensor(self._end, device=context.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._forced is None:
            return scores
        tokens, inside = history.tokens, history.inside
        begun = last_after(tokens, inside, self._start)  # [rows, 1]
        since = history.lengths[:, None] - begun
        over = (begun > last_after(tokens, inside, self._end)) & (since >= self.params.thinking_budget)
        if not mask_rows(scores, over[:, 0]):
            return scores
        token = self._forced[progress(history, since, self._forced)]  # [rows, 1]
        return scores.scatter_(1, token, scores.gather(1, token).masked_fill_(over, 0.0))

    def reset(self) -> None:
        self._forced = None


def progress(history: genmode.History, since: Tensor, end: Tensor) -> Tensor:
    """`[rows, 1]`, long: how much of `end` `[n]` each row ends in already, within its last `since` `[rows, 1]` tokens."""
    found = torch.zeros_like(since)
    for count in range(1, len(end)):
        there = (history.tail(count) == end[:count]).all(1, keepdim=True) & (since >= count)
        found = torch.where(there, count, found)
    return found


def last_after(tokens: Tensor, inside: Tensor, marker: list[int]) -> Tensor:
    """`[rows, 1]`, long: the column behind the last occurrence of the marker in each row; 0 if there is none.

    Args:
        tokens, inside: those of the history, `[rows, width]`.
        marker: at least one token.
    """
    count = tokens.shape[1] - len(marker) + 1
    if count <= 0:
        return tokens.new_zeros(len(tokens), 1)
    found = inside[:, :count] & inside[:, len(marker) - 1 :]
    for offset, token in enumerate(marker):
        found &= tokens[:, offset : offset + count] == token
    return torch.where(found, columns(found) + len(marker), 0).amax(1, keepdim=True)


def marker_ids(marker: str | tuple[int, ...], context: genmode.Context, key: str) -> list[int]:
    """The tokens of a marker; raises `ParameterError`."""
    if isinstance(marker, str):
        tokenizer: Any = context.tokenizer
        if tokenizer is None:
            raise genmode.ParameterError(f"{key}: {marker!r} is text and there is no tokenizer; pass tokenizer= or ids")
        ids: list[int] = tokenizer.encode(marker, add_special_tokens=False)
        if not ids or tokenizer.unk_token_id in ids:
            raise genmode.ParameterError(f"{key}: the tokenizer has no tokens for {marker!r}; pass other text, or ids")
    else:
        ids = list(marker)
    outside = [token for token in ids if token >= context.vocab_size]
    if outside:
        raise genmode.ParameterError(f"{key}: {outside} outside the vocabulary of {context.vocab_size}")
    return ids
