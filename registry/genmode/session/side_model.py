"""A second model, or a second context, beside the first: it sees what the rows decode and says what it expects.

For guidance: an unconditional prompt, an amateur, an expert. The session passes on what happens to the rows, so
a side model is right under beams, drafting, rows that are taken back, and any batch. It has a cache of its own,
reads each token once, and nothing in it waits for a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from .state import DecodeState


class SideModel:
    """See `genmode.contract.context.SideModel`."""

    def __init__(
        self, state: DecodeState, model: Any, input_ids: Tensor, attention_mask: Tensor | None, own_context: bool
    ) -> None:
        _check(state, model, input_ids, attention_mask, own_context)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        input_ids = input_ids.to(state.device).repeat_interleave(state.rows // input_ids.shape[0], 0)
        mask = mask.repeat_interleave(state.rows // mask.shape[0], 0)
        history = state.history
        self.model = model
        self._state, self._device = state, model.device
        self._offset = input_ids.shape[1] - history.prompt
        """So many more tokens each row has here than in the session."""
        self._last = input_ids[:, -1]
        self.engine: Engine = state.open_engine(
            model, input_ids.to(self._device), mask.to(self._device), state.max_length + self._offset
        )
        self._pending: list[Tensor] = list(history.ids[:, history.prompt :].unbind(1))
        self._started = self._uneven = False
        self._logits: Tensor | None = None
        self._lengths = history.lengths  # of the rows as far as they were accepted, drafts included
        state.chain.follow(self)

    def logits(self) -> Tensor:
        self._catch_up()
        state, history = self._state, self._state.history
        if self._uneven and state.host_reads_freely:
            shortest, longest = (int(x) for x in torch.aminmax(self._lengths))
            self._uneven = shortest != longest
            if not self._uneven:
                self.engine.settle(shortest + self._offset)
        if self._logits is None:  # gone back, and nothing decoded since: the last token is read again
            last = (self._lengths - 1).clamp(max=history.buffer.shape[1] - 1)
            fed = history.buffer.gather(1, last[:, None])[:, 0]
            fed = torch.where(self._lengths > history.prompt, fed, self._last)
            self._rewind(torch.ones_like(last))
            self._logits = self.engine.forward(fed[:, None].to(self._device))[:, -1]
        return self._logits.to(device=state.device, dtype=torch.float32, copy=True)

    def _catch_up(self) -> None:
        if not self._started:
            self._started, self._logits = True, first_forward(self.engine, self.model)
        if self._pending:
            fed, self._pending = torch.stack(self._pending, 1), []
            self._logits = self.engine.forward(fed.to(self._device))[:, -1]

    def _rewind(self, counts: Tensor) -> None:
        if self._state.host_reads_freely and bool((counts == counts[0]).all()):
            self.engine.rewind(int(counts[0]))
        else:
            self.engine.rewind(counts.to(self._device))
            self._uneven = True

    def accept(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`."""
        self._pending.append(tokens)
        self._lengths = self._lengths + 1

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._catch_up()
        self.engine.select(rows.to(self._device), len(rows) == len(self._lengths))
        self._lengths, self._last = self._lengths.index_select(0, rows), self._last.index_select(0, rows)
        if self._logits is not None:
            self._logits = self._logits.index_select(0, rows.to(self._device))

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""
        self._catch_up()
        state, history = self._state, self._state.history
        # A row that is done takes padding here at each step of rows that differ; so much of it goes back as well.
        excess = (self._lengths - counts - history.lengths - state.step_width).clamp(min=0)
        counts = counts + excess
        if state.host_reads_freely and not bool(counts.any()):
            return
        self._rewind(counts)
        self._lengths = self._lengths - counts
        self.engine.limit(history.bound + state.step_width + self._offset)
        self._logits = None


def _check(
    state: DecodeState, model: Any, input_ids: Any, attention_mask: Any, own_context: bool
) -> None:  # fmt: skip
    """Raises ParameterError if the model or the context cannot stand beside the session's."""
    name = type(model).__name__
    if getattr(model, "config", None) is None or not hasattr(model, "generate"):
        raise ParameterError(f"{model!r} cannot stand beside the model; load it and give a transformers model")
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    if vocabulary != state.vocabulary.size:
        raise ParameterError(
            f"{name} beside the first has a vocabulary of {vocabulary} tokens, and the first one of "
            f"{state.vocabulary.size}; take two models with one tokenizer"
        )
    encoders = (bool(model.config.is_encoder_decoder), bool(state.given.model.config.is_encoder_decoder))
    if encoders[0] != encoders[1]:
        raise ParameterError(
            f"{name} {'has' if encoders[0] else 'has not'} an encoder and {type(state.given.model).__name__} "
            f"{'has' if encoders[1] else 'has not'}; take two models of one kind"
        )
    if encoders[0] and not own_context:
        raise ParameterError(
            f"{name} is an encoder-decoder model, and a second context of decoder tokens does not go beside what its "
            "encoder reads; leave the context out, or take a decoder-only model"
        )
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point() or input_ids.is_complex():
        kind = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise ParameterError(f"the tokens of a second context are of {kind}; give a tensor of ids, [rows or 1, length]")
    if attention_mask is not None and not isinstance(attention_mask, Tensor):
        kind = type(attention_mask).__name__
        raise ParameterError(f"the attention mask of a second context is of {kind}; give a tensor as its tokens are")
    if input_ids.dim() != 2 or input_ids.shape[0] not in (1, state.num_inputs, state.rows):
        raise ParameterError(
            f"a second context has the shape {list(input_ids.shape)} for {state.num_inputs} inputs; give one row for "
            "each, or one for all"
        )
    if input_ids.shape[1] == 0:
        raise ParameterError(
            "a second context of no tokens says nothing; give at least one, or input_ids for inputs_embeds"
        )
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise ParameterError(
            f"the attention mask of a second context has the shape {list(attention_mask.shape)}, and its tokens "
            f"{list(input_ids.shape)}; give one number for each token"
        )
    highest = int(input_ids.max())
    if highest >= vocabulary or int(input_ids.min()) < 0:
        raise ParameterError(
            f"a second context has the token {highest}, outside the vocabulary of {vocabulary}; encode it with the "
            "model's tokenizer"
        )


def first_forward(engine: Engine, model: Any) -> Tensor:
    """The prompt's logits `[rows, vocab]` of a model beside the first, which gets the tokens alone.

    Raises:
        UnsupportedError: it needs other inputs of the call too, such as images.
    """
    try:
        return engine.prefill()
    except (TypeError, ValueError) as error:
        raise UnsupportedError(
            f"{type(model).__name__} cannot run beside the rows, where it gets their tokens and none of the call's other "
            f"inputs: {error}"
        ) from error
