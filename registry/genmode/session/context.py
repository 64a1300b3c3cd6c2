"""A running call as its processors, criteria and watermarkers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UnsupportedError
from .probe import probe
from .side_model import SideModel

if TYPE_CHECKING:
    from ..contract.component import Component
    from ..contract.history import History
    from ..contract.session import Look
    from .state import DecodeState


class CallContext:
    """See `genmode.contract.context.Context`."""

    def __init__(self, state: DecodeState) -> None:
        self._state = state
        given, vocabulary = state.given, state.vocabulary
        self.tokenizer, self.generation_config = given.tokenizer, given.config
        self.encoder_input_ids = given.encoder_input_ids
        self.vocab_size, self.eos_token_ids, self.pad_token_id = vocabulary
        self.device, self.num_inputs, self.backtracks = state.device, state.num_inputs, state.abilities.backtracks
        self.prompt_length, self.max_length = state.history.prompt, state.max_length

    @property
    def rows(self) -> int:
        return self._state.rows

    @property
    def inputs(self) -> Tensor:
        return self._state.inputs

    @property
    def history(self) -> History:
        return self._state.history

    @property
    def unfinished(self) -> Tensor:
        return self._state.unfinished

    @property
    def processors(self) -> tuple[Component, ...]:
        return tuple(one.processor for one in self._state.chain.links)

    def uniform(self) -> Tensor:
        return self._state.noise.uniform()

    def probe(self, tokens: Tensor) -> Look:
        state = self._state
        if not state.abilities.probes:
            raise UnsupportedError('a component that probes the model states traits = {"probes"}')
        return probe(state, tokens)

    def side_model(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, *, model: Any = None
    ) -> SideModel:
        state = self._state
        model = state.given.model if model is None else model
        own = input_ids is None
        if input_ids is None:
            prompt = state.history.prompt
            input_ids = state.history.ids[:, :prompt]
            attention_mask = torch.arange(prompt, device=state.device) >= state.history.starts[:, None]
        return SideModel(state, model, input_ids, attention_mask, own)
