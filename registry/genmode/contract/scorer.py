"""What judges the text of rows: how a caller says it, and what a strategy is given. See `Session.scorer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scoring:
    """How texts are scored: by what, what it reads, and which of its numbers counts.

    Where a strategy takes a scorer, the caller gives a function or a model as it is, or one of these::

        genmode.generate(..., best_of_scorer=genmode.Scoring(classifier, tokenizer=its_tokenizer, label="polite"))

    Attributes:
        scorer: a function that takes a list of texts and returns a number for each, as a sequence or a tensor `[n]`;
            or a sequence-classification model of transformers, in evaluation mode, on any device.
        tokenizer: of the model, where it has a vocabulary of its own: it reads the rows as text then. None, or the
            call's tokenizer: it reads the ids of the rows as they are.
        label: of a model with several labels, the one whose logarithm of the probability is the score (of a regression
            its value), by name or number. The score of a model with one label is its logit.
        prompt: whether the prompt stands before what was decoded. Of an encoder-decoder model, that of the decoder.
        special_tokens: whether special tokens stand in texts as they are written, as a chat's do; the tokenizer of the
            model then adds none of its own. Otherwise they are left out.
        reads_ids: whether the function takes a list of ids, `[length]`, long, on the CPU each, in place of texts.
    """

    scorer: Any
    tokenizer: Any = None
    label: int | str | None = None
    prompt: bool = True
    special_tokens: bool = False
    reads_ids: bool = False


class Scorer(Protocol):
    """Scores the rows of a session as they are when it is called.

    A call is one batch for all rows; on a device it waits, so call it at boundaries (`genmode.text.Boundaries`) rather
    than in each step. A text that has been scored in this call is not scored again, whichever row it belongs to.
    """

    def __call__(self, rows: Tensor | None = None) -> Tensor:
        """The score of each of `rows` `[n]`, long; of all rows by default. Padding is no part of a text.

        Returns:
            `[n]`, float32, on the session's device: numbers, or minus infinity for what must not be.

        Raises:
            ValueError: there is no such row.
            DecodingError: the scorer fails, or returns anything but a number for each text.
        """
        ...
