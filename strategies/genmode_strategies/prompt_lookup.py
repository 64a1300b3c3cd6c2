"""Prompt lookup decoding: drafts copied from the text itself, verified in one forward.

Saxena, "Prompt Lookup Decoding" (2023). With n the longest size up to `max_matching_ngram_size` for which a
row's last n tokens occur earlier in the row, the draft is what followed the first such occurrence. The model
runs the draft in one forward, and the row takes the longest prefix that it would have chosen itself, and one
token more. The result is exactly that of greedy search or sampling, whatever the draft: only the number of
forwards changes. Rows accept different numbers of tokens; any batch size works.

A wrong draft costs a wider forward, so less of it is run, or nothing, where copies have not been right lately;
see `genmode_strategies.drafters.copying`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

import genmode

from .drafters.copying import CopyDrafter
from .drafters.verification import decode_with


class PromptLookup(genmode.Strategy):
    """Greedy search or sampling with drafts copied from the row's own text.

    Shapes: drafts `[rows, prompt_lookup_num_tokens]`; each step takes 1 token to one more than that.
    """

    contract_version = 1
    paper = "Saxena 2023, Prompt Lookup Decoding, https://github.com/apoorvumang/prompt-lookup-decoding"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK})
    mode = "assisted_generation"
    selected_by = ("prompt_lookup_num_tokens",)

    class Params(genmode.Params):
        """Parameters of prompt lookup."""

        prompt_lookup_num_tokens: int = Field(10, ge=1, description="tokens drafted for each forward, at most")
        max_matching_ngram_size: int = Field(2, ge=1, description="longest ending that is looked up")
        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafter = CopyDrafter(session, look_up, params.max_matching_ngram_size, params.prompt_lookup_num_tokens)
        decode_with(drafter, session, params.do_sample, forced=session.forced_tokens(sample=False))


def look_up(tokens: Tensor, lengths: Tensor, starts: Tensor, longest: int, count: int) -> tuple[Tensor, Tensor]:
    """What followed the first earlier occurrence of each row's longest recurring ending.

    Args:
        tokens, lengths, starts: of a `History`.
        longest: longest ending to look for, in tokens.
        count: how many tokens to draft.

    Returns:
        The draft `[rows, count]`, long, and which rows have one, `[rows]`, bool.
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
    return tokens.gather(1, torch.minimum(picked, lengths - 1)), best > 0
