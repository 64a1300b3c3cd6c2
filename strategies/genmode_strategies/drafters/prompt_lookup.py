"""Drafts copied from the row's own text.

Saxena, "Prompt Lookup Decoding" (2023). With n the longest size up to `max_matching_ngram_size` for which a row's last n
tokens occur earlier in the row, the draft is what followed the first such occurrence. How much of it is run stands in
`genmode_strategies.drafters.copying`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .copying import CopyDrafter
from .sources import refuse_others


class PromptLookupDrafter(CopyDrafter):
    """Copies what followed the row's last tokens earlier in it. Shapes: drafts `[rows, prompt_lookup_num_tokens]`."""

    contract_version = 1
    name = "prompt_lookup"
    paper = "Saxena 2023, Prompt Lookup Decoding, https://github.com/apoorvumang/prompt-lookup-decoding"

    class Params(genmode.Params):
        """Parameters of prompt lookup."""

        prompt_lookup_num_tokens: int = Field(10, ge=1, description="tokens drafted for each forward, at most")
        max_matching_ngram_size: int = Field(2, ge=1, description="longest ending that is looked up")

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        return call.get("prompt_lookup_num_tokens") is not None

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, "prompt_lookup_num_tokens")

    @staticmethod
    def look(tokens: Tensor, lengths: Tensor, starts: Tensor, longest: int, count: int) -> tuple[Tensor, Tensor]:
        return look_up(tokens, lengths, starts, longest, count)

    @property
    def sizes(self) -> tuple[int, int]:
        return self.params.max_matching_ngram_size, self.params.prompt_lookup_num_tokens


def look_up(tokens: Tensor, lengths: Tensor, starts: Tensor, longest: int, count: int) -> tuple[Tensor, Tensor]:
    """What followed the first earlier occurrence of each row's longest recurring ending.

    Args:
        tokens, lengths, starts: of a `History`.
        longest: longest ending to look for, in tokens.
        count: how many tokens to draft.

    Returns:
        The draft `[rows, count]`, long, and how much of it follows in the row, `[rows]`, long; 0 for no draft.
    """
    lengths, starts, width = lengths[:, None], starts[:, None], tokens.shape[1]
    columns = torch.arange(width, device=tokens.device)
    # run[r, j]: how many tokens ending at column j equal the row's last ones, at most `longest`.
    run = torch.zeros_like(tokens)
    alive = torch.ones_like(tokens, dtype=torch.bool)
    for back in range(longest):
        ending = tokens.gather(1, (lengths - 1 - back).clamp(min=0))
        same = tokens.roll(back, 1) == ending
        alive = alive & same & (columns - back >= starts) & (lengths - 1 - back >= starts)
        run = run + alive
    run = run.masked_fill(columns >= lengths - 1, 0)  # the ending itself is no earlier occurrence
    best = run.amax(1)
    first = (run == best[:, None]).long().argmax(1)
    picked = (first[:, None] + 1 + torch.arange(count, device=tokens.device)).clamp(max=width - 1)
    follow = (lengths[:, 0] - 1 - first).clamp(max=count)
    return tokens.gather(1, torch.minimum(picked, lengths - 1)), follow.where(best > 0, 0)
