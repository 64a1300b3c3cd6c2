"""The input that processors of encoder-decoder models compare the output with."""

from __future__ import annotations

from torch import Tensor

import genmode

from .row_ops import expand_rows


def encoder_tokens(given: Tensor | None, context: genmode.Context, name: str) -> Tensor:
    """The encoder's input for each row, or the prompt where there is no encoder: `[rows, length]`, long.

    Args:
        given: an input that takes its place.
        context: the call.
        name: of the processor, for the message.
    """
    tokens = context.encoder_input_ids if given is None else given
    if tokens is None:
        return context.history.tokens[:, : context.prompt_length].clone()
    tokens = tokens[None] if tokens.dim() == 1 else tokens
    return expand_rows(tokens.to(context.device), context.rows, f"input of {name}")
