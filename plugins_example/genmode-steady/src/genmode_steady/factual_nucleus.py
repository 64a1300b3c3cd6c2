"""Factual-nucleus sampling: top-p whose p shrinks towards the end of each sentence.

Lee et al., "Factuality Enhanced Language Models for Open-Ended Text Generation", NeurIPS 2022,
https://arxiv.org/abs/2206.04624, section 4: the t-th token of a sentence (t = 1, 2, …) is drawn from the
smallest set of tokens whose probability reaches

    p_t = max(factual_floor, factual_p * factual_decay ** (t - 1))

A sentence ends after a token whose text ends with `.`, `!` or `?`, and begins anew with the text that is
decoded; the prompt does not count. Among tokens of equal score at the boundary, those that a stable
descending sort puts first stay. The position is read from the history, so beams and drafting need no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field

import genmode

if TYPE_CHECKING:
    from torch import Tensor

SENTENCE_ENDS = (".", "!", "?")


class FactualNucleus(genmode.LogitsProcessor):
    """Top-p with a p that decays within a sentence."""

    contract_version = 1
    paper = "Lee et al. 2022, Factuality Enhanced Language Models, https://arxiv.org/abs/2206.04624"
    stage = genmode.Stage.TRUNCATION

    class Params(genmode.Params):
        """Parameters of `factual_nucleus`."""

        factual_p: float = Field(0.9, gt=0, le=1, description="p of a sentence's first token")
        factual_decay: float = Field(0.9, gt=0, le=1, description="factor on p for each further token")
        factual_floor: float = Field(0.3, ge=0, le=1, description="lower bound of p")
        factual_sentence_ends: tuple[int, ...] | None = Field(
            None, description="ids of tokens that end a sentence; read off the tokenizer if not given"
        )

    def begin(self, context: genmode.Context) -> None:
        """Find the tokens that end a sentence.

        Raises:
            ParameterError: neither their ids nor a tokenizer are given.
        """
        ids = self.params.factual_sentence_ends
        if ids is None:
            if context.tokenizer is None:
                raise genmode.ParameterError(
                    "factual_nucleus has to know where sentences end: give the call a tokenizer=, "
                    "or the ids of the tokens that end one in factual_sentence_ends=[...]"
                )
            words = context.tokenizer.convert_ids_to_tokens(range(len(context.tokenizer)))
            ids = [index for index, word in enumerate(words) if word and word.endswith(SENTENCE_ENDS)]
        ends = torch.zeros(context.vocab_size, dtype=torch.bool)
        ends[[index for index in ids if 0 <= index < context.vocab_size]] = True
        self._ends = ends.to(context.device)  # [vocab]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        """Mask what lies outside each row's nucleus: `[rows, vocab]`, float32, with -inf."""
        p = (self.params.factual_p * self.params.factual_decay ** self._position(history)).clamp(
            min=self.params.factual_floor
        )  # [rows]
        ordered, order = scores.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        above = probabilities.cumsum(-1) - probabilities  # probability of all better tokens
        outside = above >= p[:, None]
        outside[:, 0] = False
        return scores.masked_fill(outside.scatter(-1, order, outside), float("-inf"))

    def _position(self, history: genmode.History) -> Tensor:
        """How many tokens of its sentence each row has: `[rows]`, long."""
        columns = torch.arange(history.tokens.shape[1], device=history.tokens.device)
        decoded = history.inside & (columns >= history.prompt)  # [rows, width]
        ended = decoded & self._ends[history.tokens.where(decoded, 0)]
        last = torch.where(ended, columns, history.prompt - 1).amax(-1)
        return history.lengths - 1 - last
