"""A sequence-classification model of transformers as a scorer: texts of ids in, a number for each out.

Texts of a batch are filled up on the right with the `pad_token_id` of the model's config and masked there: models that read
the last token find it by that id, and positions count from the text's first token. A text's score is therefore that which it
has alone, but for rounding. Models that cannot tell where a text ends get one text at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DecodingError, ParameterError


class Classifier:
    """One number for each text.

    Args:
        model: the model.
        label: see `genmode.contract.scorer.Scoring`.
        vocabulary: tokens of the session's vocabulary, whose ids it reads; None if it has its own tokenizer.
    """

    def __init__(self, model: Any, label: int | str | None, vocabulary: int | None) -> None:
        config, self._name = model.config, type(model).__name__
        if getattr(model, "can_generate", bool)():
            raise ParameterError(
                f"{self._name} generates text and scores none; load it with AutoModelForSequenceClassification, or give a "
                "function that makes a number of what it says"
            )
        if model.training:
            raise ParameterError(
                f"{self._name} is in training mode, where dropout makes scores random; call .eval() first"
            )
        text = config.get_text_config()
        size = getattr(text, "vocab_size", None)
        if vocabulary is not None and size is not None and size < vocabulary:
            raise ParameterError(
                f"{self._name} has a vocabulary of {size} tokens, and the decoded model one of {vocabulary}: it cannot read "
                "its ids. Give its own tokenizer: genmode.Scoring(model, tokenizer=...)"
            )
        self._model, self._labels = model, int(config.num_labels)
        self._column = column(config, label, self._name)
        self._kind: str | None = getattr(config, "problem_type", None)
        self._pad: int | None = getattr(text, "pad_token_id", None)
        self._alone = self._pad is None or getattr(config, "summary_type", None) == "last"  # XLNet's: the last column
        taken = inspect.signature(model.forward).parameters
        self._more = {"use_cache": False} if "use_cache" in taken else {}

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """The scores of texts of ids: `[n]`, float32.

        Raises:
            DecodingError: a text has no token, or the model returns anything but a line of logits for each.
        """
        if not all(texts):
            raise DecodingError(
                f"{self._name} cannot score a text of no tokens; have the prompt stand before it "
                "(genmode.Scoring(prompt=True)), or score where each row has decoded something"
            )
        batches = [[one] for one in texts] if self._alone else [texts]
        logits = torch.cat([self._logits(one) for one in batches])
        if self._labels == 1 or self._kind == "regression":
            return logits[:, self._column]
        if self._kind == "multi_label_classification":
            return torch.nn.functional.logsigmoid(logits[:, self._column])
        return logits.log_softmax(-1)[:, self._column]

    def _logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """`[n, labels]`, float32."""
        longest, pad = max(map(len, texts)), 0 if self._pad is None else self._pad
        ids = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in texts], device=self._model.device)
        lengths = torch.tensor([len(one) for one in texts], device=ids.device)
        mask = (torch.arange(longest, device=ids.device) < lengths[:, None]).long()
        logits = getattr(self._model(input_ids=ids, attention_mask=mask, **self._more), "logits", None)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (len(texts), self._labels):
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise DecodingError(
                f"{self._name} returned logits {found} for {len(texts)} texts and {self._labels} labels; a scorer is a "
                "sequence-classification model, with logits [texts, labels]"
            )
        return logits.float()


def column(config: Any, label: int | str | None, name: str) -> int:
    """Which of the model's logits is the label's.

    Raises:
        ParameterError: there is no such label, or several and none is named.
    """
    count, names = int(config.num_labels), dict[str, int](config.label2id or {})
    if label is None and count == 1:
        return 0
    found = names.get(label, -1) if isinstance(label, str) else label
    if found is None or not 0 <= found < count:
        given = "is told none" if label is None else f"has no label {label!r}"
        raise ParameterError(
            f"{name} has {count} labels and {given}; genmode.Scoring(model, label=...) takes the one that is the score, one of "
            f"{', '.join(names) or 'its numbers'} or 0 to {count - 1}"
        )
    return found
