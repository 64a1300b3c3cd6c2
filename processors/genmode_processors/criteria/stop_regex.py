"""Stop at a pattern: a row is done at the first token with which a regular expression is found in its output.

The output is the decoded text of what came behind the prompt (see `genmode.text`), with U+FFFD for bytes that
are not UTF-8, also for a character of which only the first bytes have come. Patterns are Python's; they are searched in
the whole output at every token, on the host, by the library `regex`, which keeps to a time: a pattern such as
`(a|aa)+$` takes twice as long for each character more. A step has `SECONDS` for all rows, and a pattern at most 100,000
characters once what it counts is written out. What is known of a row is compared with the row and kept as
far as they agree, so beams and drafting need no state.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, Field

import genmode
from genmode.text import token_bytes

from ..counted import check_size
from .stop_strings import as_list

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

regex: Any = import_module("regex")  # it has no types

SECONDS = 2.0
"""For a step, all rows together."""


def compilable(pattern: str) -> str:
    """The pattern; raises ValueError if it is no regular expression."""
    check_size(pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # "[[" and the like, which libraries read differently
            re.compile(pattern)
        regex.compile(pattern)
    except RecursionError:  # its traceback has a frame for each group
        raise ValueError(f"{pattern[:80]!r} has groups that stand too deep within each other") from None
    except (re.error, regex.error, FutureWarning) as error:
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
        self._patterns = [regex.compile(pattern) for pattern in self.params.stop_regex]
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
        end = time.monotonic() + SECONDS
        found = [self._found(text, row, end) for row, text in enumerate(texts)]
        return torch.tensor(found, dtype=torch.bool, device=history.tokens.device)

    def _found(self, text: str, row: int, end: float) -> bool:
        try:
            return any(pattern.search(text, timeout=max(end - time.monotonic(), 0.001)) for pattern in self._patterns)
        except TimeoutError as error:
            raise genmode.DecodingError(
                f"stop_regex: searching {len(text)} characters of row {row} takes more than {SECONDS:g} seconds for the step; "
                "write the patterns so that no repetition can match the same text in several ways",
                component=self.name,
                row=row,
            ) from error

    def reorder(self, rows: Tensor) -> None:
        self._rows = []

    def reset(self) -> None:
        self._rows = []
