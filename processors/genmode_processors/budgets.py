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

from .order import preceding
from .rows import as_ints, columns, lengths, mask_rows, tail, written

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
    forces = True

    class Params(genmode.Params):
        thinking_budget: int | None = Field(None, ge=0, description="most tokens inside thinking; no limit if unset")
        think_start: Marker = Field("<think>", description="what begins thinking: text, or ids")
        think_end: Marker = Field("</think>", description="what ends thinking: text, or ids")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._start: list[int] = []
        self._end: list[int] = []
        self._forced: Tensor | None = None  # [n], long

    def begin(self, session: genmode.Session) -> None:
        if self.params.thinking_budget is None:
            return
        self._start = marker_ids(self.params.think_start, session, "think_start")
        self._end = marker_ids(self.params.think_end, session, "think_end")
        self._forced = torch.tensor(self._end, device=session.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._forced is None:
            return scores
        begun = last_after(history, self._start)  # [rows, 1]
        over = (begun > last_after(history, self._end)) & (lengths(history) - begun >= self.params.thinking_budget)
        if not mask_rows(scores, over[:, 0]):
            return scores
        token = self._forced[self._progress(history, begun, self._forced)]  # [rows, 1]
        return scores.scatter_(1, token, scores.gather(1, token).masked_fill_(over, 0.0))

    def reset(self) -> None:
        self._forced = None

    def _progress(self, history: genmode.History, begun: Tensor, end: Tensor) -> Tensor:
        """`[rows, 1]`, long: how much of the end each row ends in already, since thinking began."""
        progress = torch.zeros_like(begun)
        for count in range(1, len(end)):
            there = (tail(history, count) == end[:count]).all(1, keepdim=True) & (lengths(history) - begun >= count)
            progress = torch.where(there, count, progress)
        return progress


def last_after(history: genmode.History, marker: list[int]) -> Tensor:
    """`[rows, 1]`, long: the column behind the last occurrence of the marker in each row; 0 if there is none."""
    tokens = written(history)
    count = tokens.shape[1] - len(marker) + 1
    if count <= 0:
        return tokens.new_zeros(history.rows, 1)
    found = tokens[:, :count] == marker[0]
    for offset, token in enumerate(marker[1:], 1):
        found &= tokens[:, offset : offset + count] == token
    behind = columns(found) + len(marker)
    found &= behind - len(marker) >= history.starts[:, None]
    if history.uniform is None:
        found &= behind <= lengths(history)
    return torch.where(found, behind, 0).amax(1, keepdim=True)


def marker_ids(marker: str | tuple[int, ...], session: genmode.Session, key: str) -> list[int]:
    """The tokens of a marker; raises `ParameterError`."""
    if isinstance(marker, str):
        tokenizer: Any = session.tokenizer
        if tokenizer is None:
            raise genmode.ParameterError(f"{key}: {marker!r} is text and there is no tokenizer; pass tokenizer= or ids")
        ids: list[int] = tokenizer.encode(marker, add_special_tokens=False)
        if not ids or tokenizer.unk_token_id in ids:
            raise genmode.ParameterError(f"{key}: the tokenizer has no tokens for {marker!r}; pass other text, or ids")
    else:
        ids = list(marker)
    outside = [token for token in ids if token >= session.vocab_size]
    if outside:
        raise genmode.ParameterError(f"{key}: {outside} outside the vocabulary of {session.vocab_size}")
    return ids
