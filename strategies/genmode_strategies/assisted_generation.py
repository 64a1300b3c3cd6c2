"""Assisted generation: something cheaper drafts, the model verifies the draft in one forward.

Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", and transformers' assisted
generation. The strategy of every call with `draft=`. The loop stands in `genmode_strategies.drafters.loop`, how drafts are
accepted under sampling in `genmode_strategies.verifications`. Any batch size, and `num_return_sequences`.

Without `draft=`, drafts come from `assistant_model`, a model with the same tokenizer, or with another one if both
tokenizers are given: it then drafts text (greedy search) or among the tokens that both have (sampling); from the model's
own first `assistant_early_exit` layers; or from the text (`prompt_lookup_num_tokens`). `multi_token_prediction` drafts
with heads that the model ships (`use_mtp`) or with a DFlash model (`speculation_type`).

transformers adapts `assistant_confidence_threshold` from call to call if scikit-learn is there; here it stays.

Not supported: `assistant_ensemble_weight` (its result is not that of the model; `verify="cascade"` names such a thing),
models whose state cannot go back, beams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

import genmode

from .drafters.assistants import check_assistant
from .drafters.first_layers import check
from .drafters.hidden_states import check_decoder
from .drafters.loop import drafted
from .drafters.sources import SOURCES, one_source
from .drafters.text import TextDrafter


class AssistedGeneration(genmode.Strategy):
    """Greedy search or sampling with drafts of a cheaper model.

    Shapes: drafts `[rows, k]`; each step takes 1 to k + 1 tokens of each row.
    """

    contract_version = 1
    paper = "Leviathan et al. 2023, Speculative Decoding, https://arxiv.org/abs/2211.17192"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK})
    selected_by = ("assistant_model", "assistant_early_exit")
    drafts = ""

    class Params(TextDrafter.Params):
        """Parameters of assisted generation: those of its drafters."""

        assistant_early_exit: int | None = Field(None, ge=1, description="draft with the model's first layers, so many")
        prompt_lookup_num_tokens: int | None = Field(None, ge=1, description="copy so many tokens from the text")
        max_matching_ngram_size: int = Field(2, ge=1, description="longest ending that is looked up")
        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        refuse_ensemble(call)
        assistant = call.get("assistant_model")
        if call.get("assistant_tokenizer") is not None and assistant is None:
            raise genmode.ParameterError("assistant_tokenizer is given without assistant_model; give both, or neither")
        if call.get("draft") is not None:
            return
        one_source(cls.name, call, SOURCES[:3])
        if params.assistant_early_exit is not None:
            check(call["model"], params.assistant_early_exit)
        if assistant is not None:
            check_assistant(cls.name, call)

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafted(session, self.drafter, self.verification)


class MultiTokenPrediction(genmode.Strategy):
    """Greedy search or sampling with drafts made from the model's hidden states.

    Shapes: drafts `[rows, k]`, k being what the heads or the DFlash model predict at a time.
    """

    contract_version = 1
    paper = "Gloeckle et al. 2024, Multi-token Prediction, https://arxiv.org/abs/2404.19737"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK, genmode.Need.HIDDEN_STATES})
    mode = "assisted_generation"
    selected_by = ("use_mtp", "speculation_type")
    drafts = ""
    skip_checks: ClassVar[Mapping[str, str]] = {
        "no_synchronisation": "transformers' own generators draft, on the host",
        "cost_of_rows": "transformers' own generators draft for one row at a time",
    }

    class Params(genmode.Params):
        """Parameters of multi-token prediction."""

        use_mtp: bool = Field(False, description="draft with the heads that the model ships")
        speculation_type: Literal["dflash"] | None = Field(None, description="draft with assistant_model, of this type")
        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        model, assistant = call["model"], call.get("assistant_model")
        one_source(cls.name, call, ("use_mtp", "assistant_model"))
        refuse_ensemble(call)
        if (assistant is not None) != (params.speculation_type is not None):
            given = type(assistant).__name__ if assistant is not None else None
            raise genmode.ParameterError(
                f"speculation_type={params.speculation_type!r} with assistant_model={given}: a DFlash model needs both, "
                "and the model's own heads neither"
            )
        check_decoder(cls.name, model)

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafted(session, self.drafter, self.verification)


def refuse_ensemble(call: Mapping[str, Any]) -> None:
    """Refuse the flag that trades the model's distribution for speed."""
    weight = call.get("assistant_ensemble_weight")
    if weight is not None:
        raise genmode.ParameterError(
            f"assistant_ensemble_weight={weight}: drafting here gives exactly what the model gives; leave it out"
        )
