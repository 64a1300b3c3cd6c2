"""Stop at a string: a row is done at the first token of its output in which one of the strings ends.

The text is the decoded one, special tokens included as they are written. A string may begin and end inside
tokens and be split over them, also inside characters, and may begin in the prompt: it is looked for as UTF-8
(see `genmode.text.PhraseTracker`), with one look-up for each row and step, on the device.

transformers' `StopStringCriteria` stops at the same token, except where a string ends or begins inside a character
that is split over tokens, which that one does not find. Case and spaces count. Strings that decoding rules beyond single tokens would
change (spaces cleaned up before punctuation) are found as they are without the rule.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BeforeValidator, Field

import genmode
from genmode.text import PhraseTracker, phrase_table

from ..row_ops import every

if TYPE_CHECKING:
    from torch import Tensor


def as_list(value: Any) -> Any:
    """One string as a list of one."""
    return [value] if isinstance(value, str) else value


class StopStrings(genmode.StoppingCriterion, genmode.StandIn):
    """Stop at a string.

    Raises `ParameterError` without a tokenizer; an empty string is refused by the parameters, since every
    text contains it.
    """

    contract_version = 1
    name = "stop_strings"
    replaces = ("StopStringCriteria",)

    class Params(genmode.Params):
        stop_strings: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_list)] = Field(
            (), description="strings that end a row once its output contains them"
        )

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._tracker: PhraseTracker | None = None
        self._rows: genmode.History | None = None  # the call's own rows, which only grow and move

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> StopStrings | None:
        """The strings of the transformers object; None unless it was made for the call's tokenizer."""
        if tokenizer is None:
            return None
        same = type(theirs)(tokenizer, list(theirs.stop_strings))  # from its cache
        if not torch.equal(same.embedding_vec.cpu(), theirs.embedding_vec.cpu()):
            return None
        return cls(stop_strings=theirs.stop_strings)

    def begin(self, context: genmode.Context) -> None:
        if not self.params.stop_strings:
            return
        if context.tokenizer is None:
            raise genmode.ParameterError("stop_strings needs the tokenizer; pass tokenizer= to generate")
        table = phrase_table(self.params.stop_strings, context.tokenizer)
        self._tracker = PhraseTracker(table, context.device)
        self._rows = context.history

    def check(self, history: genmode.History) -> Tensor:
        if self._tracker is None:
            return every(history, False)
        # Drafts and candidates, which may be dropped again, leave nothing behind.
        read = self._tracker.update if history is self._rows else self._tracker.scan
        return read(history)[1]

    def reorder(self, rows: Tensor) -> None:
        if self._tracker is not None:
            self._tracker = copy.copy(self._tracker)  # a copy of this object may look at candidates with it
            self._tracker.reorder(rows)

    def reset(self) -> None:
        self._tracker = self._rows = None
