"""What drafters that run a second model share: its parameters, whether it fits, and how much it drafts.

A draft has `num_assistant_tokens` tokens, or by `num_assistant_tokens_schedule` "heuristic" 2 more than the last one if
that was all right, else 1 less; "heuristic" begins a call where the last call with this assistant ended,
"heuristic_transient" does not. It ends early where no row's drafted token has probability
`assistant_confidence_threshold`. What the call leaves at its default is read from the assistant's generation config, as
in transformers.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

import genmode

from .draft_lengths import Constant, Heuristic
from .streams import check_tokenizers

_reached: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""The draft length that the "heuristic" schedule reached with an assistant."""


class AssistantParams(genmode.Params):
    """Parameters of drafters that run a model."""

    num_assistant_tokens: int = Field(20, ge=1, description="tokens drafted for each forward, at most")
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] = Field(
        "constant", description="how that number changes from draft to draft"
    )
    assistant_confidence_threshold: float = Field(
        0.4, ge=0, le=1, description="probability of a drafted token under which a draft ends; 0 for never"
    )


def asks_for_assistant(call: Mapping[str, Any]) -> bool:
    """Whether a call gives a model to draft with that reads tokens."""
    return call.get("assistant_model") is not None and call.get("speculation_type") is None


def of_other_words(call: Mapping[str, Any]) -> bool:
    """Whether the assistant of a call has tokens of its own; see `check_tokenizers`."""
    assistant = call["assistant_model"]
    sizes = (vocabulary(call["model"]), vocabulary(assistant))
    return check_tokenizers(assistant, call.get("tokenizer"), call.get("assistant_tokenizer"), sizes)


def check_assistant(drafter: str, call: Mapping[str, Any]) -> None:
    """Refuse a call without an assistant, or with one that cannot draft for the model."""
    model, assistant = call["model"], call.get("assistant_model")
    if assistant is None:
        raise genmode.ParameterError(f"drafter {drafter!r} runs a second model; give it as assistant_model")
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
    if of_other_words(call) and model.config.is_encoder_decoder:
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
    """How many tokens to draft at a time; `assistant` is None for a part of the model itself."""
    count = int(wanted(params, "num_assistant_tokens", assistant))
    schedule = wanted(params, "num_assistant_tokens_schedule", assistant)
    if schedule == "constant":
        return Constant(count)
    if schedule != "heuristic" or assistant is None:
        return Heuristic(session, count)
    if params.num_assistant_tokens == type(params).model_fields["num_assistant_tokens"].default:
        count = int(_reached.get(assistant, count))
    return Remembered(session, count, assistant)


class Remembered(Heuristic):
    """Begins a call where the last one with this assistant ended."""

    def __init__(self, session: genmode.Session, first: int, assistant: Any) -> None:
        super().__init__(session, first)
        self.assistant = assistant

    def learn(self, width: int, agreed: Tensor, running: Tensor) -> None:
        super().learn(width, agreed, running)
        _reached[self.assistant] = self.now
