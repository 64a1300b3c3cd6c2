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

    @property
    def keeps_states(self) -> bool:
        """Whether hidden states or attentions are recorded."""
        return any(kept is not None for kept in (self.hidden, self.attentions, self.cross))

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
            states = outputs.get(f"{prefix}hidden_states")
            # A replayed graph writes its next states where these are.
            self.hidden.append(tuple(x.clone() for x in states) if states and logits.is_cuda else states)

    def ragged(self, logits: Tensor, scores: Tensor, columns: Tensor, taken: Tensor, outputs: Any, prompt: int) -> None:
        """Record a step in which rows took different numbers of tokens: one entry for each token, as of greedy search.

        Args:
            logits, scores: `[rows, count, vocab]`.
            columns: `[rows, count]`, long: which decoded token of its row each position decided.
            taken: `[rows, count]`, bool: the positions that were accepted.
            outputs: what the model returned.
            prompt: how many tokens the prompt has.
        """
        rows, positions = taken.nonzero(as_tuple=True)
        where = columns[rows, positions]
        places = [(c, rows[where == c], positions[where == c]) for c in where.unique().tolist()]
        for kept, new in ((self.scores, scores), (self.logits, logits)):
            if kept is None:
                continue
            for column, mine, at in places:
                while len(kept) <= column:
                    kept.append(torch.zeros_like(new[:, 0]))
                kept[column][mine] = new[mine, at]
        prefix = "decoder_" if self.encoder_decoder else ""
        for states, name, axis in (
            (self.hidden, f"{prefix}hidden_states", 1), (self.attentions, f"{prefix}attentions", 2),
            (self.cross, "cross_attentions", 2),
        ):  # fmt: skip
            layers = outputs.get(name)
            if states is None:
                continue
            if not states:  # the prompt's forward, which is recorded whole
                states.append(layers)
                continue
            for column, mine, at in places:
                if column == 0:  # taken back to the prompt, whose states are here already
                    continue
                while len(states) <= column:
                    states.append(None)
                if layers is not None:
                    seen = prompt + column if name == f"{prefix}attentions" else None  # what the row had by then
                    states[column] = _placed(states[column], layers, axis, mine, at, seen)

    def trim(self, decoded: Tensor) -> None:
        """Forget what was recorded of tokens that were taken back; rows have `decoded` `[rows]` tokens in the end."""
        for kept in (self.scores, self.logits):
            for column, entry in enumerate(kept or []):
                entry[decoded <= column] = 0
        longest = int(decoded.max())
        for kept in (self.scores, self.logits, self.attentions, self.cross, self.hidden):
            if kept is not None:
                del kept[longest:]

    def select(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was, in all that was recorded."""
        for kept in (self.scores, self.logits, self.attentions, self.cross, self.hidden):
            if kept:
                kept[:] = [_selected(entry, rows) for entry in kept]

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


def _selected(entry: Any, rows: Tensor) -> Any:
    if isinstance(entry, tuple):
        return tuple(_selected(one, rows) for one in entry)
    return entry.index_select(0, rows) if isinstance(entry, Tensor) else entry


def _placed(
    entry: tuple[Tensor, ...] | None, layers: tuple[Tensor, ...], axis: int, rows: Tensor, at: Tensor, seen: int | None
) -> tuple[Tensor, ...]:
    """The entry of one decoded token with these rows' states put in.

    Args:
        entry: of each layer the states of one position, of the same shapes as `layers` but for that; or None.
        layers: `[rows, count, size]` with axis 1, or `[rows, heads, count, keys]` with axis 2.
        rows, at: `[n]`, long: row `rows[i]` has its states at position `at[i]`.
        seen: cut to so many keys; None for all.
    """
    filled: list[Tensor] = []
    for number, layer in enumerate(layers):
        cut = layer[..., :seen]
        target = torch.zeros_like(cut.narrow(axis, 0, 1)) if entry is None else entry[number]
        target.select(axis, 0)[rows] = cut.movedim(axis, 1)[rows, at]
        filled.append(target)
    return tuple(filled)
