"""A second model, or a second context, beside the first: it sees what the rows decode and says what it expects.

For guidance (an unconditional prompt, an amateur, an expert) and for drafting (an assistant). The session
passes on what happens to the rows, so a companion is right under beams, drafting and any batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ParameterError

if TYPE_CHECKING:
    from .engine import Engine
    from .session import Session


class Companion:
    """Made by `Session.companion`.

    Attributes:
        model: the model that it runs.
        engine: how it runs it.
    """

    def __init__(self, session: Session, model: Any, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        if input_ids.shape[0] not in (session.rows, session.inputs):
            raise ParameterError(
                f"a second context has {input_ids.shape[0]} rows for {session.inputs} inputs; give one for each"
            )
        vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        if vocabulary != session.vocab_size:
            raise ParameterError(
                f"{type(model).__name__} beside the first has a vocabulary of {vocabulary} tokens, and the first one "
                f"of {session.vocab_size}; take two models with one tokenizer"
            )
        if model.config.is_encoder_decoder:
            raise ParameterError(
                f"{type(model).__name__} is an encoder-decoder model, which cannot stand beside another"
            )
        copies = session.rows // input_ids.shape[0]
        input_ids = input_ids.repeat_interleave(copies, 0)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if mask.shape[0] != session.rows:
            mask = mask.repeat_interleave(copies, 0)
        decoded = session.history.ids[:, session.history.prompt :]
        self.model = model
        longest = session.max_length + input_ids.shape[1] - session.prompt_length
        self.engine: Engine = session.open_beside(model, input_ids, mask, longest)
        self._pending: list[Tensor] = list(decoded.unbind(1))
        self._started = False
        self._logits: Tensor | None = None
        self._history = session.history
        self._lengths = session.history.lengths
        session.chain.follow(self)

    def logits(self) -> Tensor:
        """What it expects behind each row's last token: `[rows, vocab]`, float32; may be written."""
        self._catch_up()
        if self._logits is None:  # gone back, and nothing decoded since: the last token is read again
            last = (self._lengths - 1).clamp(max=self._history.tokens.shape[1] - 1)
            self.engine.rewind(torch.ones_like(last))
            self._logits = self.engine.forward(self._history.tokens.gather(1, last[:, None]))[:, -1]
        return self._logits.to(torch.float32, copy=True)

    def _catch_up(self) -> None:
        if not self._started:
            self._started, self._logits = True, self.engine.prefill()
        if self._pending:
            fed, self._pending = torch.stack(self._pending, 1), []
            self._logits = self.engine.forward(fed)[:, -1]

    def accept(self, tokens: Tensor) -> None:
        """Each row continues with `tokens` `[rows]`."""
        self._pending.append(tokens)
        self._lengths = self._lengths + 1

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._catch_up()
        self.engine.select(rows, True)
        self._lengths = self._lengths.index_select(0, rows)
        if self._logits is not None:
            self._logits = self._logits.index_select(0, rows)

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""
        self._catch_up()
        self.engine.rewind(counts)
        self._lengths = self._lengths - counts
        self._logits = None
