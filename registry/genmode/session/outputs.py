"""What a call returns besides tokens: recorded step by step, in transformers' output classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.generation import utils as generation


class Recorder:
    """Keeps what the output flags of the config ask for, one entry for each decoded token.

    Args:
        config: the generation config that `generate` prepared.
        encoder_decoder: whether attentions come in three kinds.
    """

    def __init__(self, config: Any, encoder_decoder: bool) -> None:
        wanted = bool(config.return_dict_in_generate)
        self.returns_dict = wanted
        self.encoder_decoder = encoder_decoder
        self.scores: list[Tensor] | None = [] if wanted and config.output_scores else None
        self.logits: list[Tensor] | None = [] if wanted and config.output_logits else None
        self.attentions: list[Any] | None = [] if wanted and config.output_attentions else None
        self.cross: list[Any] | None = [] if wanted and config.output_attentions and encoder_decoder else None
        self.hidden: list[Any] | None = [] if wanted and config.output_hidden_states else None
        self.active = any(x is not None for x in (self.scores, self.logits, self.attentions, self.hidden))

    def step(self, logits: Tensor, scores: Tensor | None, outputs: Any) -> None:
        """Record one step: `logits` and `scores` `[rows, vocab]`, and what the model returned."""
        if self.scores is not None and scores is not None:
            self.scores.append(scores.clone())
        if self.logits is not None:
            self.logits.append(logits.clone())
        prefix = "decoder_" if self.encoder_decoder else ""
        if self.attentions is not None:
            self.attentions.append(outputs.get(f"{prefix}attentions"))
        if self.cross is not None:
            self.cross.append(outputs.get("cross_attentions"))
        if self.hidden is not None:
            self.hidden.append(outputs.get(f"{prefix}hidden_states"))

    def ragged(self, logits: Tensor, scores: Tensor, columns: Tensor, taken: Tensor, outputs: Any) -> None:
        """Record a step in which rows took different numbers of tokens.

        Args:
            logits, scores: `[rows, count, vocab]`.
            columns: `[rows, count]`, long: which decoded token of its row each position decided.
            taken: `[rows, count]`, bool: the positions that were accepted.
        """
        width = int(torch.where(taken, columns + 1, 0).max())
        rows, positions = taken.nonzero(as_tuple=True)
        where = columns[rows, positions]
        for kept, new in ((self.scores, scores), (self.logits, logits)):
            if kept is not None:
                while len(kept) < width:
                    kept.append(torch.zeros_like(new[:, 0]))
                for column in where.unique().tolist():
                    at = where == column
                    kept[column][rows[at]] = new[rows[at], positions[at]]
        if self.attentions is not None or self.hidden is not None:
            saved, self.scores, self.logits = (self.scores, self.logits), None, None
            self.step(logits[:, 0], None, outputs)
            self.scores, self.logits = saved

    def undo(self) -> None:
        """Forget the last step."""
        for kept in (self.scores, self.logits, self.attentions, self.cross, self.hidden):
            if kept:
                kept.pop()

    def result(self, sequences: Tensor, encoder: Any, cache: Any, beams: dict[str, Any] | None) -> Any:
        """The tensor, or transformers' output class with all that was recorded."""
        if not self.returns_dict:
            return sequences

        def frozen(kept: list[Any] | None) -> Any:
            return None if kept is None else tuple(kept)

        if beams is not None and self.scores is None:  # transformers gives these two together
            beams = {**beams, "sequences_scores": None}
        fields: dict[str, Any] = {
            "sequences": sequences, "scores": frozen(self.scores), "logits": frozen(self.logits),
            "past_key_values": cache, **(beams or {}),
        }  # fmt: skip
        if not self.encoder_decoder:
            plain: Any = generation.GenerateDecoderOnlyOutput
            beamed: Any = generation.GenerateBeamDecoderOnlyOutput
            return (plain if beams is None else beamed)(
                **fields, attentions=frozen(self.attentions), hidden_states=frozen(self.hidden)
            )
        plain = generation.GenerateEncoderDecoderOutput
        beamed = generation.GenerateBeamEncoderDecoderOutput
        return (plain if beams is None else beamed)(
            **fields,
            encoder_attentions=encoder.get("attentions") if self.attentions is not None else None,
            encoder_hidden_states=encoder.get("hidden_states") if self.hidden is not None else None,
            decoder_attentions=frozen(self.attentions),
            cross_attentions=frozen(self.cross),
            decoder_hidden_states=frozen(self.hidden),
        )
