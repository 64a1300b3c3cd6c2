"""The names that `genmode.generate` takes itself, beside flags of transformers, parameters of components and model inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..contract.kinds import Kind

HEADER = "genmode"
"""The key of a saved config that says what it needs, see `requirements`."""


class CallKey(NamedTuple):
    """One name.

    Attributes:
        kinds: the kinds of component that it may name; the first is meant where nothing has the name that is given.
        saved: whether a saved generation config may hold it.
        passed_on: whether transformers' `generate` gets it as it is.
        reserved: False where a component may have a parameter of this name, which then reads what is given.
    """

    kinds: tuple[Kind, ...] = ()
    saved: bool = False
    passed_on: bool = False
    reserved: bool = True


CALL_KEYS: Mapping[str, CallKey] = {
    # what to decode from, and with what
    "model": CallKey(),
    "inputs": CallKey(passed_on=True),
    "generation_config": CallKey(),
    "tokenizer": CallKey(),
    "assistant_model": CallKey(),
    "assistant_tokenizer": CallKey(),
    # inputs that every model has or may have
    "input_ids": CallKey(),
    "inputs_embeds": CallKey(),
    "attention_mask": CallKey(),
    "past_key_values": CallKey(),
    # components
    Kind.STRATEGIES.argument: CallKey((Kind.STRATEGIES,), saved=True),
    Kind.PROCESSORS.argument: CallKey((Kind.PROCESSORS, Kind.WATERMARKERS), saved=True),
    Kind.CRITERIA.argument: CallKey((Kind.CRITERIA,), saved=True),
    Kind.WATERMARKERS.argument: CallKey((Kind.WATERMARKERS, Kind.PROCESSORS)),
    Kind.DRAFTERS.argument: CallKey((Kind.DRAFTERS,), saved=True),
    Kind.VERIFICATIONS.argument: CallKey((Kind.VERIFICATIONS,), saved=True),
    "logits_processor": CallKey(passed_on=True),
    "stopping_criteria": CallKey(passed_on=True),
    "prefix_allowed_tokens_fn": CallKey(passed_on=True, reserved=False),
    "negative_prompt_ids": CallKey(passed_on=True, reserved=False),
    "negative_prompt_attention_mask": CallKey(passed_on=True, reserved=False),
    # how to run
    "seed": CallKey(),
    "streamer": CallKey(),
    "cancel": CallKey(),
    "compile": CallKey(),
    "synced_gpus": CallKey(),
    "custom_generate": CallKey(),
    # of saved configs alone
    HEADER: CallKey(saved=True),
}

RESERVED = frozenset(name for name, key in CALL_KEYS.items() if key.reserved)
"""No names for parameters of components: no call could ever set them."""

OWN_ARGUMENTS = tuple(name for name, key in CALL_KEYS.items() if key.passed_on)
"""Arguments of transformers' own `generate` that are neither flags nor model inputs, and go through as they are."""

SAVED = frozenset(name for name, key in CALL_KEYS.items() if key.saved)
"""Keys of a generation config that are neither transformers' nor a component's."""

NAMING: Mapping[str, tuple[Kind, ...]] = {name: key.kinds for name, key in CALL_KEYS.items() if key.kinds}
"""Arguments that name components, and the kinds that each may name."""

CONFIG_NAMING = NAMING.keys() & SAVED
"""Those of them that a config may hold."""
