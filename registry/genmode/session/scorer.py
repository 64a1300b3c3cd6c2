"""The texts of rows, and what a function or a model thinks of them.

Texts are scored anew as a whole, whatever was scored of their beginnings: a cache of the model's would save time, but its
logits differ from those of a whole text in the last digits, and a row's score would depend on when it was asked for. What is
kept are the scores of whole texts, so rows that ended, and forks of one row, cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..contract.scorer import Scoring
from ..errors import DecodingError, GenmodeError, ParameterError
from .classifier import Classifier

if TYPE_CHECKING:
    from .state import DecodeState

Read = str | tuple[int, ...]
"""What a scorer reads of a row: its text, or its ids."""


class Scorer:
    """See `genmode.contract.scorer.Scorer`."""

    def __init__(self, state: DecodeState, given: Any) -> None:
        scoring = given if isinstance(given, Scoring) else Scoring(given)
        own = state.given.tokenizer
        self._state, self._scoring = state, scoring
        self._name: str = getattr(scoring.scorer, "__name__", type(scoring.scorer).__name__)
        self._model: Classifier | None = None
        self._known: dict[Read, float] = {}
        if isinstance(scoring.scorer, torch.nn.Module) and hasattr(scoring.scorer, "config"):
            if scoring.reads_ids:
                raise ParameterError(
                    f"reads_ids is for functions; {self._name} reads ids where tokenizer= is left out or the call's"
                )
            self._as_text = scoring.tokenizer is not None and scoring.tokenizer is not own
            self._model = Classifier(scoring.scorer, scoring.label, None if self._as_text else state.vocabulary.size)
        elif callable(scoring.scorer):
            if scoring.tokenizer is not None or scoring.label is not None:
                raise ParameterError(
                    f"tokenizer and label are for models; {self._name} is a function, which gets texts and returns a number "
                    "for each. Leave them out"
                )
            self._as_text = not scoring.reads_ids
        else:
            raise ParameterError(
                f"{scoring.scorer!r} cannot score texts; give a function that takes a list of texts and returns a number "
                "for each, a sequence-classification model of transformers, or a genmode.Scoring of either"
            )
        if self._as_text and own is None:
            raise ParameterError(f"{self._name} reads the rows as text, which needs tokenizer= in the call")

    def __call__(self, rows: Tensor | None = None) -> Tensor:
        numbers = self._numbers(rows)
        read = self._read(numbers)
        new = [one for one in dict.fromkeys(read) if one not in self._known]
        if new:
            found = self._checked(self._scored(new), [numbers[read.index(one)] for one in new])
            self._known.update(zip(new, found, strict=True))
        return torch.tensor([self._known[one] for one in read], dtype=torch.float32, device=self._state.device)

    def _numbers(self, rows: Tensor | None) -> list[int]:
        """The rows asked for, on the host."""
        count = self._state.rows
        if rows is None:
            return list(range(count))
        if rows.dtype != torch.long or rows.dim() != 1:
            raise ValueError(f"a scorer takes numbers of rows, [n], long; given {rows.dtype} {list(rows.shape)}")
        numbers: list[int] = rows.tolist()
        if not all(0 <= one < count for one in numbers):
            raise ValueError(f"a scorer was asked for rows {numbers}; rows are numbered from 0 to {count - 1}")
        return numbers

    def _read(self, numbers: list[int]) -> list[Read]:
        """What the scorer reads of each row."""
        ids = texts_of(self._state, numbers, self._scoring.prompt)
        if not self._as_text:
            return [tuple(one) for one in ids]
        tokenizer = self._state.given.tokenizer
        return [tokenizer.decode(one, skip_special_tokens=not self._scoring.special_tokens) for one in ids]

    def _scored(self, new: Sequence[Any]) -> Any:
        """What the scorer returns for texts or ids."""
        given: Sequence[Any] = new
        try:
            if self._model is None:
                if not self._as_text:
                    given = [torch.tensor(one, dtype=torch.long) for one in new]
                return self._scoring.scorer(list(given))
            if self._as_text:
                given = self._scoring.tokenizer(
                    list(new), add_special_tokens=not self._scoring.special_tokens, padding=False, truncation=False
                )["input_ids"]
            return self._model(given)
        except (GenmodeError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            unit = "characters" if given is new and self._as_text else "tokens"
            raise DecodingError(
                f"the scorer {self._name} failed on {len(new)} texts of up to {max(map(len, given))} {unit}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _checked(self, returned: Any, rows: list[int]) -> list[float]:
        """What the scorer returned for these rows, as numbers.

        Raises:
            DecodingError: it is no number for each.
        """
        asked = f"return a number for each of the {len(rows)} texts, as a sequence or a tensor [{len(rows)}]"
        try:
            values = torch.as_tensor(returned).detach()
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise DecodingError(f"the scorer {self._name} returned {shown(returned)}; {asked}") from error
        if tuple(values.shape) != (len(rows),) or values.is_complex() or values.is_meta:
            form = f"{values.dtype} of shape {list(values.shape)} on {values.device}"
            raise DecodingError(f"the scorer {self._name} returned {form}; {asked}")
        values = values.to("cpu", torch.float32)
        unsound = values.isnan() | (values == torch.inf)
        if bool(unsound.any()):
            at = int(unsound.long().argmax())
            raise DecodingError(
                f"the scorer {self._name} returned {float(values[at])} for row {rows[at]}; return a number, or minus "
                "infinity for a text that must not be",
                row=rows[at],
            )
        found: list[float] = values.tolist()
        return found


def shown(returned: Any) -> str:
    """What a scorer returned, short enough for a message."""
    text = repr(returned)
    return f"{type(returned).__name__} {text if len(text) <= 80 else text[:77] + '...'}"


def texts_of(state: DecodeState, rows: list[int], prompt: bool) -> list[list[int]]:
    """The ids of each row's text, without padding before the prompt or behind the end; waits for a device.

    Args:
        state: the call.
        rows: of which rows.
        prompt: whether the prompt is part of the text.
    """
    history, vocabulary = state.history, state.vocabulary
    bounds = torch.stack([history.starts, history.lengths, state.ends, state.unfinished.long()], 1)
    picked = torch.tensor(rows, dtype=torch.long, device=state.device)
    tokens: list[list[int]] = history.tokens.index_select(0, picked).tolist()
    texts: list[list[int]] = []
    for ids, (start, length, end, unfinished) in zip(tokens, bounds.index_select(0, picked).tolist(), strict=True):
        decoded = ids[history.prompt : min(length, end)]
        if not unfinished and state.ending and not state.abilities.population:  # whose `ends` say it
            decoded = decoded[: _ended(decoded, vocabulary.eos, vocabulary.pad)]
        texts.append(ids[start : history.prompt] + decoded if prompt else decoded)
    return texts


def _ended(decoded: list[int], eos: list[int], pad: int | None) -> int:
    """How many tokens of a row that has ended are its text: up to the first that ends it, else all but padding."""
    for place, token in enumerate(decoded):
        if token in eos:
            return place + 1
    count = len(decoded)
    while count and decoded[count - 1] == pad:
        count -= 1
    return count
