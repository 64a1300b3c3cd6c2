"""Suffix lookup: drafts copied from the text of any row of the call.

See `genmode_strategies.drafters.suffix` for where a draft is looked up, `genmode_strategies.drafters.copying` for
how much of it is run, and `genmode_strategies.drafters.loop` for why the result is that of greedy search. Useful with `num_return_sequences`, or for inputs that have text in common; else prompt lookup does
the same for less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

import genmode

from .drafters.loop import drafted
from .drafters.suffix import SuffixDrafter
from .prompt_lookup import refuse_another


class SuffixLookup(genmode.Strategy):
    """Greedy search or sampling with drafts copied from any row's text.

    Shapes: drafts `[rows, suffix_lookup_num_tokens]`; each step takes 1 token to one more than that.
    """

    contract_version = 1
    paper = SuffixDrafter.paper
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK})
    drafts = SuffixDrafter.name

    class Params(SuffixDrafter.Params):
        """Parameters of suffix lookup."""

        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_another(cls, call)

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafted(session, self.drafter, self.verification, session.forced_tokens(sample=False))
