"""Stop at a pattern: a row is done at the first token with which a regular expression is found in its output.

The output is the decoded text of what came behind the prompt (see `genmode.text`), with U+FFFD for bytes that
are not UTF-8, also for a character of which only the first bytes have come. Python's `re.search` runs over
the whole output at every token, on the host. What is known of a row is compared with the row and kept as
far as they agree, so beams and drafting need no state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, Field

import genmode
from genmode.text import token_bytes

from .stop_strings import as_list

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


def compilable(pattern: str) -> str:
    """The pattern; raises ValueError if it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


class RowText:
    """The output of one row, decoded as far as it has been read."""

    def __init__(self) -> None:
        self._ids: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._ends = [0]  # bytes up to each token, the last one's end included
        self._data = b""

    def read(self, ids: npt.NDArray[np.int64], texts: list[bytes]) -> str:
        """The text of `ids`; only what differs from the last call is decoded again."""
        shared = min(len(ids), len(self._ids))
        differs = np.flatnonzero(ids[:shared] != self._ids[:shared])
        shared = int(differs[0]) if len(differs) else shared
        del self._ends[shared + 1 :]
        new = [texts[token] if 0 <= token < len(texts) else b"" for token in map(int, ids[shared:])]
        self._data = self._data[: self._ends[-1]] + b"".join(new)
        for text in new:
            self._ends.append(self._ends[-1] + len(text))
        self._ids = ids.copy()
        return self._data.decode(errors="replace")


class StopRegex(genmode.StoppingCriterion):
    """Stop at a pattern.

    Reads the tokens on the host: on a device every step waits once for the tokens, where other criteria wait for
    nothing. Raises `ParameterError` without a tokenizer; what is no regular expression is refused by the parameters.
    """

    contract_version = 1
    name = "stop_regex"
    skip_checks: ClassVar[Mapping[str, str]] = {
        "no_synchronisation": "regular expressions are searched on the host, once a step",
    }

    class Params(genmode.Params):
        stop_regex: Annotated[
            tuple[Annotated[str, Field(min_length=1), AfterValidator(compilable)], ...],
            BeforeValidator(as_list),
        ] = Field((), description="regular expressions that end a row once one is found in its output")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._patterns = [re.compile(pattern) for pattern in self.params.stop_regex]
        self._texts: list[bytes] = []
        self._rows: list[RowText] = []

    def begin(self, context: genmode.Context) -> None:
        if context.tokenizer is None:
            raise genmode.ParameterError("stop_regex needs the tokenizer; pass tokenizer= to generate")
        self._texts = token_bytes(context.tokenizer)

    def check(self, history: genmode.History) -> Tensor:
        self._rows += [RowText() for _ in range(history.rows - len(self._rows))]
        tokens = history.tokens.cpu().numpy()
        lengths = cast("list[int]", history.lengths.tolist())
        texts = (
            self._rows[row].read(tokens[row, history.prompt : length], self._texts)
            for row, length in enumerate(lengths)
        )
        found = [any(pattern.search(text) for pattern in self._patterns) for text in texts]
        return torch.tensor(found, dtype=torch.bool, device=history.tokens.device)

    def reorder(self, rows: Tensor) -> None:
        self._rows = []

    def reset(self) -> None:
        self._rows = []
