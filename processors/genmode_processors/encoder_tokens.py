"""The input that processors of encoder-decoder models compare the output with, without its padding."""

from __future__ import annotations

from torch import Tensor

import genmode

from .row_ops import expand_rows


def encoder_tokens(given: Tensor | None, context: genmode.Context, name: str) -> Tensor:
    """The encoder's input for each row, or the prompt where there is no encoder: `[rows, length]`, long, -1 in padding.

    Args:
        given: an input that takes its place, in which nothing is padding.
        context: the call.
        name: of the processor, for the message.
    """
    tokens = context.encoder_input_ids if given is None else given
    if tokens is None:
        prompt = slice(context.prompt_length)
        return context.history.tokens[:, prompt].masked_fill(~context.history.inside[:, prompt], -1)
    tokens = tokens[None] if tokens.dim() == 1 else tokens
    return expand_rows(tokens.to(context.device), context.rows, f"input of {name}")


def from_call(context: genmode.Context, flag: str) -> bool:
    """Whether a flag of the call has switched a processor on, so that what transformers gave it is the call's input."""
    value = getattr(context.generation_config, flag, None)
    return value is not None and value != 0
