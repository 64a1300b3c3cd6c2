"""Prompt lookup decoding: drafts copied from the text itself, verified in one forward.

Saxena, "Prompt Lookup Decoding" (2023); see `genmode_strategies.drafters.prompt_lookup` for where a draft is looked up. The
model runs the draft in one forward, and the row takes as much of it as is right, and one token more. The result of
greedy search and of a call with `seed=` is exactly that without drafts: only the number of forwards changes. Rows accept
different numbers of tokens; any batch size works.

A wrong draft costs a wider forward, so less of it is run, or nothing, where copies have not been right lately;
see `genmode_strategies.drafters.copying`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

import genmode

from .drafters.loop import drafted
from .drafters.prompt_lookup import PromptLookupDrafter


class PromptLookup(genmode.Strategy):
    """Greedy search or sampling with drafts copied from the row's own text.

    Shapes: drafts `[rows, prompt_lookup_num_tokens]`; each step takes 1 token to one more than that.
    """

    contract_version = 1
    paper = PromptLookupDrafter.paper
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK})
    mode = "assisted_generation"
    selected_by = ("prompt_lookup_num_tokens",)
    drafts = PromptLookupDrafter.name

    class Params(PromptLookupDrafter.Params):
        """Parameters of prompt lookup."""

        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_another(cls, call)

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafted(session, self.drafter, self.verification, session.forced_tokens(sample=False))


def refuse_another(strategy: type[genmode.Strategy], call: Mapping[str, Any]) -> None:
    """Refuse a drafter beside a strategy that has its own."""
    if call.get("draft") is not None:
        raise genmode.ParameterError(
            f"strategy {strategy.name!r} drafts with drafter {strategy.drafts!r}; leave strategy or draft out"
        )
