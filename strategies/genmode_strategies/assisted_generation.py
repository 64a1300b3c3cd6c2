"""Assisted generation: a cheaper model drafts, the model verifies the draft in one forward.

Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", and transformers' assisted
generation. How drafts are verified, and why the result is that of greedy search or sampling, stands in
`genmode_strategies.drafters.verification`. Any batch size, and `num_return_sequences`.

Drafts come from `assistant_model`, a model with the same tokenizer, or with another one if both tokenizers are
given: it then drafts text (greedy search) or among the tokens that both have (sampling); from the model's own
first `assistant_early_exit` layers; or from the text (`prompt_lookup_num_tokens`). `multi_token_prediction` drafts
with heads that the model ships (`use_mtp`) or with a DFlash model (`speculation_type`).

A draft has `num_assistant_tokens` tokens, or by `num_assistant_tokens_schedule` "heuristic" 2 more than the last
one if that was all right, else 1 less; "heuristic" begins a call where the last call with this assistant ended,
"heuristic_transient" does not. It ends early where no row's drafted token has probability
`assistant_confidence_threshold`. What the call leaves at its default is read from the assistant's generation
config, as in transformers. transformers adapts the threshold from call to call if scikit-learn is there; here it
stays.

Not supported: `assistant_ensemble_weight` (its result is not that of the model), models whose state cannot go back,
beams.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

import genmode

from .drafters.copying import CopyDrafter
from .drafters.draft_lengths import Constant, Heuristic
from .drafters.early_exit import check, first_layers
from .drafters.hidden_states import dflash_drafter, mtp_drafter
from .drafters.model import ModelDrafter, SameTokens
from .drafters.shared_words import SharedWords
from .drafters.streams import check_tokenizers
from .drafters.text import TextDrafter
from .drafters.verification import Drafter, decode_with
from .prompt_lookup import look_up

SOURCES = ("assistant_model", "assistant_early_exit", "prompt_lookup_num_tokens", "use_mtp")
"""Where drafts come from; a call names one."""

_reached: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""The draft length that the "heuristic" schedule reached with an assistant."""


class AssistedGeneration(genmode.Strategy):
    """Greedy search or sampling with drafts of a cheaper model.

    Shapes: drafts `[rows, k]`; each step takes 1 to k + 1 tokens of each row.
    """

    contract_version = 1
    paper = "Leviathan et al. 2023, Speculative Decoding, https://arxiv.org/abs/2211.17192"
    flags: ClassVar[Mapping[str, Any]] = {"num_beams": 1}
    needs: ClassVar[frozenset[genmode.Need]] = frozenset({genmode.Need.ROLLBACK})
    selected_by = ("assistant_model", "assistant_early_exit")

    class Params(genmode.Params):
        """Parameters of assisted generation."""

        num_assistant_tokens: int = Field(20, ge=1, description="tokens drafted for each forward, at most")
        num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] = Field(
            "constant", description="how that number changes from draft to draft"
        )
        assistant_confidence_threshold: float = Field(
            0.4, ge=0, le=1, description="probability of a drafted token under which a draft ends; 0 for never"
        )
        assistant_early_exit: int | None = Field(None, ge=1, description="draft with the model's first layers, so many")
        assistant_lookbehind: int = Field(10, ge=1, description="tokens of another tokenizer that are encoded again")
        target_lookbehind: int = Field(10, ge=1, description="tokens of the model's that are encoded again")
        prompt_lookup_num_tokens: int | None = Field(None, ge=1, description="copy so many tokens from the text")
        max_matching_ngram_size: int = Field(2, ge=1, description="longest ending that is looked up")
        do_sample: bool = Field(False, description="sample instead of taking the most probable token")

    @classmethod
    def validate(cls, params: Any, call: Mapping[str, Any]) -> None:
        one_source(cls.name, call, SOURCES[:3])
        refuse_ensemble(call)
        assistant, model = call.get("assistant_model"), call["model"]
        if call.get("assistant_tokenizer") is not None and assistant is None:
            raise genmode.ParameterError("assistant_tokenizer is given without assistant_model; give both, or neither")
        if params.assistant_early_exit is not None:
            check(model, params.assistant_early_exit)
        if assistant is not None:
            check_assistant(model, assistant, call)

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafter = self.drafter(session, params)
        decode_with(drafter, session, params.do_sample)
        lengths, assistant = getattr(drafter, "lengths", None), session.assistant_model
        if assistant is None or wanted(params, "num_assistant_tokens_schedule", assistant) != "heuristic":
            return
        if isinstance(lengths, Heuristic):
            _reached[assistant] = lengths.now

    def drafter(self, session: genmode.Session, params: Any) -> Drafter:
        """What the parameters ask for."""
        most = params.prompt_lookup_num_tokens
        if most is not None:
            return CopyDrafter(session, look_up, params.max_matching_ngram_size, most)
        if params.assistant_early_exit is not None:
            reader = SameTokens(session, first_layers(session.model, params.assistant_early_exit))
            lengths, threshold = lengths_of(session, params, None), params.assistant_confidence_threshold
            return ModelDrafter(session, reader, lengths, threshold, params.do_sample)
        assistant = session.assistant_model
        threshold = wanted(params, "assistant_confidence_threshold", assistant)
        lengths = lengths_of(session, params, assistant)
        sizes = (session.vocab_size, vocabulary(assistant))
        if not check_tokenizers(assistant, session.tokenizer, session.assistant_tokenizer, sizes):
            return ModelDrafter(session, SameTokens(session, assistant), lengths, threshold, params.do_sample)
        if params.do_sample:
            return ModelDrafter(session, SharedWords(session), lengths, threshold, True)
        backs = [wanted(params, key, assistant) for key in ("target_lookbehind", "assistant_lookbehind")]
        return TextDrafter(session, lengths, threshold, *backs)


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
        if model.config.is_encoder_decoder:
            raise genmode.UnsupportedError(f"{cls.name} drafts for decoder-only models; {type(model).__name__} is none")
        if params.use_mtp and getattr(model.config.get_text_config(), "num_mtp_layers", None) is None:
            raise genmode.UnsupportedError(
                f"use_mtp=True: {type(model).__name__} ships no heads that predict several tokens (its config has no "
                "num_mtp_layers); draft with assistant_model or prompt_lookup_num_tokens instead"
            )
        if assistant is not None and getattr(assistant.config, "target_layer_ids", None) is None:
            raise genmode.ParameterError(
                f"speculation_type='dflash' needs a DFlash model as assistant_model; {type(assistant).__name__} is none"
            )

    def decode(self, session: genmode.Session, params: Any) -> None:
        drafter = mtp_drafter(session) if params.use_mtp else dflash_drafter(session)
        decode_with(drafter, session, params.do_sample)


def one_source(name: str, call: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse a call that names no source of drafts, several, or one of another strategy."""
    given = [key for key in SOURCES if call.get(key) not in (None, False)]
    if len(given) > 1:
        raise genmode.ParameterError(f"{' and '.join(given)} each say where drafts come from; give one of them")
    if not given or given[0] not in allowed:
        raise genmode.ParameterError(
            f"strategy {name!r} needs one of {', '.join(allowed)} to know where drafts come from"
            + (f", not {given[0]}" if given else "")
        )


def refuse_ensemble(call: Mapping[str, Any]) -> None:
    """Refuse the flag that trades the model's distribution for speed."""
    weight = call.get("assistant_ensemble_weight")
    if weight is not None:
        raise genmode.ParameterError(
            f"assistant_ensemble_weight={weight}: drafting here gives exactly what the model gives; leave it out"
        )


def check_assistant(model: Any, assistant: Any, call: Mapping[str, Any]) -> None:
    """Refuse an assistant that cannot draft for the model."""
    name = type(assistant).__name__
    if name.startswith(("Gemma4Assistant", "Gemma4UnifiedAssistant")):
        raise genmode.UnsupportedError(
            f"assistant_model={name} reads the keys and values of the model, which is not supported; take a draft "
            "model that reads tokens, or assistant_early_exit"
        )
    if getattr(assistant.config, "target_layer_ids", None) is not None:
        raise genmode.ParameterError(f"assistant_model={name} is a DFlash model: set speculation_type='dflash'")
    if assistant.config.is_encoder_decoder != model.config.is_encoder_decoder:
        kinds = ["an encoder-decoder" if x.config.is_encoder_decoder else "a decoder-only" for x in (assistant, model)]
        raise genmode.ParameterError(
            f"assistant_model={name} is {kinds[0]} model and {type(model).__name__} {kinds[1]} model; "
            "take two of one kind"
        )
    sizes = (vocabulary(model), vocabulary(assistant))
    apart = check_tokenizers(assistant, call.get("tokenizer"), call.get("assistant_tokenizer"), sizes)
    if apart and model.config.is_encoder_decoder:
        raise genmode.UnsupportedError(
            "assistant_tokenizer: models with encoders and different tokenizers read different inputs; take an "
            "assistant_model with the same tokenizer"
        )


def vocabulary(model: Any) -> int:
    """How many tokens a model tells apart."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


def wanted(params: Any, key: str, assistant: Any) -> Any:
    """A parameter; where it has its default, the assistant's own if its generation config sets one."""
    value = getattr(params, key)
    own = getattr(getattr(assistant, "generation_config", None), key, None)
    return own if own is not None and value == type(params).model_fields[key].default else value


def lengths_of(session: genmode.Session, params: Any, assistant: Any) -> Constant:
    """How many tokens to draft at a time."""
    count = int(wanted(params, "num_assistant_tokens", assistant))
    schedule = wanted(params, "num_assistant_tokens_schedule", assistant)
    if schedule == "constant":
        return Constant(count)
    default = type(params).model_fields["num_assistant_tokens"].default
    if schedule == "heuristic" and assistant is not None and params.num_assistant_tokens == default:
        count = int(_reached.get(assistant, count))
    return Heuristic(session, count)
