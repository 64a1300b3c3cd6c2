"""Drafts copied from any row of the call: rows learn from each other's text.

In the manner of Oliaro et al. 2024, "SuffixDecoding" (https://arxiv.org/abs/2411.04975), with the prompts and the
text decoded so far, of all rows, as the only source. With n the longest size up to `longest` for which a row's
last n tokens occur anywhere before, the draft is what followed them there. Of several places the row's own come
first, then those of the lowest row; within a row the first.

Useful where several results are decoded from one prompt (`num_return_sequences`), or inputs have text in common.
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


class SuffixDrafter(CopyDrafter):
    """Copies what followed a row's last tokens in any row. Shapes: drafts `[rows, suffix_lookup_num_tokens]`."""

    contract_version = 1
    name = "suffix"
    paper = "Oliaro et al. 2024, SuffixDecoding, https://arxiv.org/abs/2411.04975"

    class Params(genmode.Params):
        """Parameters of suffix lookup."""

        suffix_lookup_num_tokens: int = Field(10, ge=1, description="tokens drafted for each forward, at most")
        max_suffix_size: int = Field(4, ge=1, description="longest ending that is looked up")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, None)

    @staticmethod
    def look(tokens: Tensor, lengths: Tensor, starts: Tensor, longest: int, count: int) -> tuple[Tensor, Tensor]:
        return look_everywhere(tokens, lengths, starts, longest, count)

    @property
    def sizes(self) -> tuple[int, int]:
        return self.params.max_suffix_size, self.params.suffix_lookup_num_tokens


def look_everywhere(
    tokens: Tensor, lengths: Tensor, starts: Tensor, longest: int, count: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What followed the best earlier occurrence, in any row, of each row's ending.

    Args:
        tokens, lengths, starts: of a `History`.
        longest: longest ending to look for, in tokens.
        count: how many tokens to draft.

    Returns:
        The draft `[rows, count]`, long, and how much of it follows in the text, `[rows]`, long; 0 for no draft.
    """
    width = tokens.shape[1]
    rows, columns = torch.arange(len(tokens), device=tokens.device), torch.arange(width, device=tokens.device)
    # run[r, s, j]: how many tokens of row s ending at column j equal row r's last ones, at most `longest`.
    run = torch.zeros(len(rows), *tokens.shape, dtype=torch.int16, device=tokens.device)
    alive = torch.ones_like(run, dtype=torch.bool)
    for back in range(longest):
        places = lengths - 1 - back
        ending = tokens.gather(1, places.clamp(min=0)[:, None])  # [rows, 1]
        alive = alive & (tokens.roll(back, 1) == ending[:, :, None]) & (places >= starts)[:, None, None]
        alive = alive & (columns - back >= starts[:, None])
        run = run + alive
    run = run.masked_fill(columns >= (lengths - 1)[:, None], 0)  # nothing follows a row's last token
    # Larger is better: the longest, then the own row, then the lowest row and the first column.
    own = (rows[:, None] == rows)[:, :, None]
    value = (2 * run + own).where(run > 0, 0).flatten(1)  # [rows, rows * width]
    best = value.amax(1)
    place = (value == best[:, None]).to(torch.uint8).argmax(1)
    source, column = place // width, place % width
    picked = column[:, None] + 1 + torch.arange(count, device=tokens.device)
    picked = torch.minimum(picked.clamp(max=width - 1), lengths[source][:, None] - 1)
    follow = (lengths[source] - 1 - column).clamp(max=count)
    return tokens[source[:, None], picked], follow.where(best > 0, 0)
