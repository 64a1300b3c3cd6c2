"""Drafts of a model with another tokenizer, among the tokens that both vocabularies have.

Timor et al. 2025, "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous
Vocabularies" (https://arxiv.org/abs/2502.05202), token-level intersection: the draft model's logits are read at
the tokens that the first model has as well, all others are impossible, and a drafted token is fed back as the draft
model's own. So processors and draws act on drafts as on any other. A token that only the first model has is
read as its text. Which tokens are the same is transformers' `AssistantToTargetTranslator`.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from transformers.generation.candidate_generator import AssistantToTargetTranslator

import genmode

from .streams import Streams, Texts
from .text import Coder


class SharedWords:
    """See `genmode_strategies.drafters.model.Reader`.

    Args:
        session: the session, before its first step, with an assistant and both tokenizers.

    Raises:
        ParameterError: the tokenizers have no token in common.
    """

    def __init__(self, session: genmode.Session) -> None:
        self.session = session
        self.target, self.assistant = Coder(session.tokenizer), Coder(session.assistant_tokenizer)
        self.texts, self.streams = Texts(session), Streams(session, session.assistant_model)
        self.known = translation(session.tokenizer, session.assistant_tokenizer, session.vocab_size)
        pairs = sorted((ours, theirs) for ours, theirs in self.known.items() if ours < session.vocab_size)
        if not pairs:
            raise genmode.ParameterError(
                "tokenizer and assistant_tokenizer have no token in common; take another assistant_model, or draft "
                "without sampling, where text is handed over"
            )
        self.ours, self.theirs = torch.tensor(pairs, device=session.device).unbind(1)
        self.back = torch.zeros(session.vocab_size, dtype=torch.long, device=session.device)
        self.back[self.ours] = self.theirs

    def begin(self) -> Tensor:
        for row, new in enumerate(self.texts.update()):
            stream = self.streams.rows[row]
            if not stream:
                self.streams.rows[row] = self.assistant.ids(self.target.text(self.texts.rows[row]), special=True) or [0]
                continue
            for token in new:
                theirs = self.known.get(token)
                stream.extend([theirs] if theirs is not None else self.assistant.ids(self.target.text([token])))
        return self._translated(self.streams.begin())

    def feed(self, tokens: Tensor) -> Tensor:
        return self._translated(self.streams.feed(self.back[tokens]))

    def learn(self, drafted: bool) -> None:
        """Texts tell what is new."""

    def _translated(self, logits: Tensor) -> Tensor:
        """`logits` `[rows, vocabulary of the draft model]` over the first model's vocabulary."""
        result = logits.new_full((logits.shape[0], self.session.vocab_size), -torch.inf)
        inside = self.theirs < logits.shape[1]
        return result.index_copy_(1, self.ours[inside], logits[:, self.theirs[inside]])


_known: weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary[Any, dict[int, int]]] = weakref.WeakKeyDictionary()


def translation(tokenizer: Any, assistant_tokenizer: Any, vocab_size: int) -> dict[int, int]:
    """The draft model's id of each token that both tokenizers have, by the first model's id; kept with the two."""
    kept = _known.setdefault(tokenizer, weakref.WeakKeyDictionary())
    if assistant_tokenizer not in kept:
        made = AssistantToTargetTranslator(tokenizer, assistant_tokenizer, vocab_size)
        kept[assistant_tokenizer] = dict(made.target_to_assistant_input_ids)
    return kept[assistant_tokenizer]
