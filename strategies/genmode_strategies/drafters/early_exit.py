"""Drafts of the model's own first layers, token by token.

Zhang et al. 2023, "Draft & Verify", and Elhoushi et al. 2024, "LayerSkip": the first `assistant_early_exit` layers draft
as a second model would, see `genmode_strategies.drafters.model`; how a part of a model becomes a model stands in
`genmode_strategies.drafters.first_layers`. Worth its time for models that were trained to be read early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

import genmode

from .first_layers import check, first_layers
from .model import ModelDrafter, Reader, SameTokens
from .sources import refuse_others


class EarlyExitDrafter(ModelDrafter):
    """Drafts with the model's first layers. Shapes: drafts `[rows, k]`, q `[rows, k, vocab]`."""

    contract_version = 1
    name = "early_exit"
    paper = "Elhoushi et al. 2024, LayerSkip, https://arxiv.org/abs/2404.16710"

    class Params(ModelDrafter.Params):
        """Parameters of drafting with the first layers."""

        assistant_early_exit: int = Field(1, ge=1, description="draft with the model's first layers, so many")

    @classmethod
    def asked_for(cls, call: Mapping[str, Any]) -> bool:
        return call.get("assistant_early_exit") is not None

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_others(cls.name, call, "assistant_early_exit")
        check(call["model"], params.assistant_early_exit)

    def assistant(self, session: genmode.Session) -> Any:
        return None

    def open_reader(self, session: genmode.Session) -> Reader:
        return SameTokens(session, first_layers(session.model, self.params.assistant_early_exit))
