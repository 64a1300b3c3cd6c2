"""A question to the model: what would it say behind tokens that no row has?

The engine holds the rows as far as they were fed: behind a commit all but the last token, while a step is under way all
of it and the draft that is being verified (`DecodeState.held`). A probe feeds what is missing up to the place that it
asks about, then its own tokens, and takes all of it back; a draft that lay behind the place is run again. Where criteria
judge the tokens of a commit, the draft that the engine holds is not theirs, and all of it makes room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..contract.session import Look
from ..errors import UnsupportedError
from .population import follow

if TYPE_CHECKING:
    from .state import DecodeState


def probe(state: DecodeState, tokens: Any) -> Look:
    """The model's logits behind each of `tokens` `[rows, k]`, long, as if the rows went on with them."""
    _check(state, tokens)
    follow(state)
    engine, history = state.engine, state.history
    behind, place = state.held, state.ahead
    keep = min(behind, 0 if state.judging else place)
    again: Tensor | None = None
    if behind > keep and state.verifying is not None:  # in the middle of a draft
        again = state.verifying[:, keep:]
        engine.rewind(behind - keep)
        engine.limit(history.bound + keep)
    fed = tokens if keep == place else torch.cat([_between(state, keep, place), tokens], dim=1)
    logits, hidden = engine.probe(fed)
    count = tokens.shape[1]
    found = Look(
        logits[:, -count:].to(device=state.device, dtype=torch.float32, copy=True),
        None if hidden is None else hidden[:, -count:].clone(),
    )
    if again is not None:
        engine.refeed(again)
    return found


def _between(state: DecodeState, first: int, last: int) -> Tensor:
    """Tokens from `first` to `last` places behind each row's end: `[rows, last - first]`, long."""
    history = state.history
    columns = history.lengths[:, None] + torch.arange(first, last, device=state.device)
    return history.buffer.gather(1, columns)


def _check(state: DecodeState, tokens: Any) -> None:
    """Raises ValueError if these are no tokens of the rows, UnsupportedError in the middle of a tree."""
    size = state.vocabulary.size
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.long or tokens.dim() != 2 or not tokens.numel():
        given = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"probe takes tokens [{state.rows}, k], long, k at least 1; given {given}")
    if len(tokens) != state.rows or tokens.device != state.device:
        raise ValueError(
            f"probe takes tokens of {state.rows} rows on {state.device}; given {len(tokens)} on {tokens.device}"
        )
    if state.host_reads_freely:
        least, most = (int(one) for one in torch.aminmax(tokens))
        if least < 0 or most >= size:
            raise ValueError(
                f"probe got token {least if least < 0 else most}; the model's vocabulary has tokens 0 to {size - 1}"
            )
    if state.climbing:
        raise UnsupportedError(
            "the model cannot be probed while a draft that is a tree is being verified: probe behind commit(path=...), or "
            "draft chains where a processor or criterion probes"
        )
    if state.step_index < 0:
        raise ValueError("the model can be probed from the first step on, when it has read the prompt")
