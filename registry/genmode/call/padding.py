"""Whether the id that fills up rows is a token that the model reads, where a call may have to write it.

transformers writes whatever id it is given, and the model then fails to look it up, or a result holds what no tokenizer
decodes. Configs in the wild do have such ids (-1, or one beyond the vocabulary, of a tokenizer to which a token was added), so that
what never pads is left alone: one row, or rows that all go on to the same length.
"""

from __future__ import annotations

from typing import Any

from ..errors import ParameterError
from ..hf import embeddings, flags
from ..session.stopping import Stopping


def check_padding(model: Any, config: Any, stopping: Stopping, rows: int) -> None:
    """Refuse a padding id that is no token of the model, where rows or results may be filled up with it.

    Args:
        config: the generation config that transformers prepared.
        rows: lines that are decoded.

    Raises:
        ParameterError: says the id, the model's tokens, and what to give.
    """
    pad, readable = flags.special_tokens(config)[1], embeddings.readable_tokens(model)
    if pad is None or 0 <= pad < readable or not _may_pad(config, stopping, rows, readable):
        return
    within = [one for one in stopping.eos if 0 <= one < readable]
    raise ParameterError(
        f"pad_token_id={pad} is no token of {type(model).__name__}, which reads 0 to {readable - 1}, and what ends early "
        f"is filled up with it; give one of these, such as pad_token_id={within[0] if within else 0}"
    )


def _may_pad(config: Any, stopping: Stopping, rows: int, readable: int) -> bool:
    """Whether a row or a result may be shorter than another of the call."""
    beams = config.num_beams or 1
    results = rows // beams * (config.num_return_sequences or 1) if beams > 1 else rows
    ends = bool(stopping.others) or any(0 <= one < readable for one in stopping.eos)
    return ends and results > 1 and (beams > 1 or stopping.by_row)
