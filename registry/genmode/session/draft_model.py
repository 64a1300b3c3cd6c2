"""A model that runs ahead of the rows: it reads what they have decoded, then tokens that are only guessed.

Drafting needs it. Nothing that it does changes the rows. Where a side model follows every token as it comes, a
draft model is brought up to date once before each draft: it forgets the guesses of the last one and reads the
last few tokens of each row, in one forward, however many of them each row took.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError
from .side_model import first_forward

if TYPE_CHECKING:
    from ..contract.history import History
    from ..engines.engine import Engine
    from .state import DecodeState


class DraftModel:
    """See `genmode.contract.session.DraftModel`."""

    def __init__(
        self, state: DecodeState, model: Any, input_ids: Tensor, attention_mask: Tensor, longest: int
    ) -> None:  # fmt: skip
        own = state.given.model
        encoders = (model.config.is_encoder_decoder, own.config.is_encoder_decoder)
        if encoders[0] != encoders[1]:
            raise ParameterError(
                f"{type(model).__name__} {'has' if encoders[0] else 'has not'} an encoder and "
                f"{type(own).__name__} {'has' if encoders[1] else 'has not'}; take two models of one kind"
            )
        if input_ids.shape[1] == 0:
            raise UnsupportedError(
                f"{type(model).__name__} cannot run ahead of a prompt that is given as inputs_embeds alone; "
                "give input_ids, or decode without a draft model"
            )
        self.model = model
        self.prompt = input_ids.shape[1]
        self._home, self._device = state.device, model.device
        positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        longest = min(longest, positions or longest)
        self.engine: Engine = state.open_engine(
            model, input_ids.to(self._device), attention_mask.long().to(self._device), longest
        )
        self._close, self._others = state.close_engine, state.draft_models
        self._others.append(self)
        self._close, self._padding = state.close_engine, functools.partial(decoded_padding, state)
        self._infers = not encoders[0] and bool(attention_mask.all())
        self._held: Tensor | int | None = None
        """How many tokens each row has in the cache; None before the context was read."""
        self._opening: Tensor | None = None
        """The logits behind the context, where nothing has asked for them yet."""

    def catch_up(self, history: History, behind: int) -> Tensor:
        held = self._begin()
        opening, self._opening = self._opening, None
        if opening is not None and behind == 0:
            return self._returned(opening)
        if history.level is not None:
            target: Tensor | int = history.level - behind
            self.engine.rewind(held - target)
            self.engine.settle(history.level - behind)
            places = torch.arange(history.level - behind, history.level, device=history.tokens.device)
            fed = history.tokens.index_select(1, places)
        else:
            # A finished row may be shorter than `behind`; what is said of it is not used.
            ends = history.lengths.clamp(min=behind)
            target = (ends - behind).to(self._device)
            self.engine.rewind(held - target)
            self.engine.limit(max(history.tokens.shape[1] - behind, 0))
            fed = history.tokens.gather(1, ends[:, None] - behind + torch.arange(behind, device=ends.device))
        self._held = target
        if self._infers and (hidden := self._padding(history)) is not None:
            self.engine.hide(hidden.to(self._device))
        return self._run(fed)

    def _begin(self) -> Tensor | int:
        """How many tokens each row has in the cache, once the context was read."""
        if self._held is None:
            self._held, self._opening = self.prompt, first_forward(self.engine, self.model)
        return self._held

    def feed(self, tokens: Tensor) -> Tensor:
        return self._run(tokens[:, None])

    def _run(self, tokens: Tensor) -> Tensor:
        if self._held is None:
            raise RuntimeError("a draft model catches up with the rows before it is fed")
        self._held = self._held + tokens.shape[1]
        return self._returned(self.engine.forward(tokens.to(self._device))[:, -1])

    def _returned(self, logits: Tensor) -> Tensor:
        return logits.to(device=self._home, dtype=torch.float32, copy=True)

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; `rows` is `[new rows]`, long."""
        rows = rows.to(self._device)
        self._begin()
        self.engine.select(rows, False)
        if self._opening is not None:
            self._opening = self._opening.index_select(0, rows)
        if isinstance(self._held, Tensor):
            self._held = self._held.index_select(0, rows)

    def close(self) -> None:
        self._others.remove(self)
        self._close(self.engine)


def decoded_padding(state: DecodeState, history: History) -> Tensor | None:
    """Where one row has decoded the padding token, `[1, length]`, bool: a draft model does not see it there.

    transformers takes it for padding in what its assistant reads, and draws from torch's generator by what that says. None
    where the text has none, or nothing is to be drawn as transformers does.
    """
    pad = state.vocabulary.pad
    if (
        not (state.draws_guesses and state.rows == 1 and state.host_reads_freely)
        or pad is None
        or pad in state.vocabulary.eos
        or history.level is None
    ):
        return None
    hidden = history.tokens[:, : history.level] == pad
    return hidden if bool(hidden[:, history.prompt :].any()) else None
