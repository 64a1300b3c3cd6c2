"""A model that runs ahead of the rows: it reads what they have decoded, then tokens that are only guessed.

Drafting needs it. Nothing that it does changes the rows. Where a companion follows every token as it comes, a
forerunner is brought up to date once before each draft: it forgets the guesses of the last one and reads the
last few tokens of each row, in one forward, however many of them each row took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ParameterError, UnsupportedError

if TYPE_CHECKING:
    from .engine import Engine
    from .history import History
    from .session import Session


class Forerunner:
    """Made by `Session.forerunner`.

    Attributes:
        model: the model that it runs, on that model's device.
        prompt: tokens of every row's context, left padding included.
    """

    def __init__(self, session: Session, model: Any, input_ids: Tensor, attention_mask: Tensor, longest: int) -> None:
        encoders = (model.config.is_encoder_decoder, session.model.config.is_encoder_decoder)
        if encoders[0] != encoders[1]:
            raise ParameterError(
                f"{type(model).__name__} {'has' if encoders[0] else 'has not'} an encoder and "
                f"{type(session.model).__name__} {'has' if encoders[1] else 'has not'}; take two models of one kind"
            )
        if input_ids.shape[1] == 0:
            raise UnsupportedError(
                f"{type(model).__name__} cannot run ahead of a prompt that is given as inputs_embeds alone; "
                "give input_ids, or decode without a draft model"
            )
        self.model = model
        self.prompt = input_ids.shape[1]
        self._home, self._device = session.device, model.device
        positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        longest = min(longest, positions or longest)
        self.engine: Engine = session.open_beside(
            model, input_ids.to(self._device), attention_mask.long().to(self._device), longest
        )
        self._close = session.close_beside
        self._held: Tensor | int | None = None
        """How many tokens each row has in the cache; None before the context was read."""

    def catch_up(self, history: History, behind: int) -> Tensor:
        """Continue behind what the rows have become, and forget what was guessed.

        Args:
            history: of the session, or in the forerunner's own tokens if its vocabulary is another one. Every
                row begins with its context.
            behind: at most so many of each row's last tokens are new or not those that were fed. After a
                draft that was fed as it was guessed, 2: the last token of a draft is never fed.

        Returns:
            Logits behind each row's last token, `[rows, vocabulary of the model]`, float32, on the session's device.
        """
        logits: Tensor | None = None
        if self._held is None:
            self._held, logits = self.prompt, self.engine.prefill()
            if behind == 0:
                return self._returned(logits)
        if history.uniform is not None:
            target: Tensor | int = history.uniform - behind
            self.engine.rewind(self._held - target)
            self.engine.settle(history.uniform - behind)
            places = torch.arange(history.uniform - behind, history.uniform, device=history.tokens.device)
            fed = history.tokens.index_select(1, places)
        else:
            # A finished row may be shorter than `behind`; what is said of it is not used.
            ends = history.lengths.clamp(min=behind)
            target = (ends - behind).to(self._device)
            self.engine.rewind(self._held - target)
            self.engine.limit(max(history.bound - behind, 0))
            fed = history.tokens.gather(1, ends[:, None] - behind + torch.arange(behind, device=ends.device))
        self._held = target
        return self._run(fed)

    def feed(self, tokens: Tensor) -> Tensor:
        """Each row goes on with the guess `tokens` `[rows]`, long; returns the logits behind it."""
        return self._run(tokens[:, None])

    def _run(self, tokens: Tensor) -> Tensor:
        if self._held is None:
            raise RuntimeError("a forerunner catches up with the rows before it is fed")
        self._held = self._held + tokens.shape[1]
        return self._returned(self.engine.forward(tokens.to(self._device))[:, -1])

    def _returned(self, logits: Tensor) -> Tensor:
        return logits.to(device=self._home, dtype=torch.float32, copy=True)

    def close(self) -> None:
        """Give back what it took; done at the end of the call in any case."""
        self._close(self.engine)
