"""Suffix lookup: drafts copied from the text of any row of the call.

See `genmode_strategies.drafters.suffix` for where a draft is looked up, `genmode_strategies.drafters.copying` for
how much of it is run, and `genmode_strategies.drafters.verification` for why the result is that of greedy search or
sampling. Useful with `num_return_sequences`, or for inputs that have text in common; else prompt lookup does
the same for less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

import genmode

from .drafters.copying import CopyDrafter
from .drafters.suffix import look_everywhere
from .drafters.verification import decode_with


class SuffixLookup(genmode.Strategy):
    """Greedy search or sampling with drafts copied from any row's text.

    Shapes: drafts `[rows, suffix_lookup_num_tokens]`; each step takes 1 token to one more than that.
    """

    contract_version = 1
    paper = "Oliaro et al. 2024, SuffixDecoding, https://arxiv.org/abs/2411.04975"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK})

    class Params(genmode.Params):
        """Parameters of suffix lookup."""

        suffix_lookup_num_tokens: int = Field(10, ge=1, description="tokens drafted for each forward, at most")
        max_suffix_size: int = Field(4, ge=1, description="longest ending that is looked up")
        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafter = CopyDrafter(session, look_everywhere, params.max_suffix_size, params.suffix_lookup_num_tokens)
        decode_with(drafter, session, params.do_sample, forced=session.forced_tokens(sample=False))
