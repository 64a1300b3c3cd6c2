"""What guidance by second models and second contexts has in common.

The second model has a cache of its own and reads each token once (`genmode.Context.side_model`); rows of any
batch, beams, drafts and rows that are taken back are followed. Every draft position costs it a forward. Masked tokens
(-inf) stay masked, and a row whose every token is masked stays so, never NaN. Normalising makes scores comparable
between beams. Not supported: a second model with another vocabulary, and a second context of an encoder-decoder model,
whose context is its encoder's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genmode
from genmode.contract import SideModel

from ..begun import Begun


class Guidance(genmode.LogitsProcessor):
    """What the family shares: scores of side models, made when the call begins. Not a component by itself."""

    stage = genmode.Stage.GUIDANCE
    side_models: Begun[list[SideModel]] = Begun()

    def others(self) -> list[Tensor]:
        """What each side model expects, `[rows, vocab]`, float32; may be written."""
        return [one.logits() for one in self.side_models]

    def needed(self, key: str, what: str) -> Any:
        """The value of a parameter; raises `ParameterError` if it is not given."""
        value = getattr(self.params, key)
        if value is None:
            raise genmode.ParameterError(f"{self.name} needs {key}=: {what}")
        return value

    def reset(self) -> None:
        self.side_models = None


def log_softmax(scores: Tensor) -> Tensor:
    """log softmax, `[rows, vocab]`, a new tensor; a row of -inf alone stays one."""
    return scores - scores.logsumexp(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
