"""Which tokens a model has embeddings of, and why it may have failed to look some up."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def lookup_failure(model: Any, tokens: Tensor) -> str:
    """What is wrong with `tokens` `[rows, length]`, long, all of them valid columns; empty if nothing is."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and tokens.shape[1] > positions:
        return (
            f"rows are {tokens.shape[1]} tokens long, and {type(model).__name__} has {positions} positions; give a "
            "shorter prompt or a smaller max_new_tokens"
        )
    lowest, highest = (int(bound) for bound in tokens.aminmax())
    size = int(config.vocab_size)
    if lowest < 0 or highest >= size:
        wrong = lowest if lowest < 0 else highest
        return f"there is a token id {wrong}, and the vocabulary of {type(model).__name__} is 0 to {size - 1}"
    return ""


def readable_tokens(model: Any) -> int:
    """How many tokens the model reads, 0 and up: those of its vocabulary, and further ones that it has embeddings of."""
    size = int(model.config.get_text_config(decoder=True).vocab_size)
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:  # of models that make embeddings otherwise
        return size
    return max(size, int(getattr(table, "num_embeddings", 0)))
