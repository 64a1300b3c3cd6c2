"""Biases on sequences of tokens.

With a bias b for the sequence s of n tokens, `score[s[n-1]] += b` wherever the row ends in s[0 .. n-2]; a
sequence of one token is biased at every step. Biases of sequences that end in the same token add up, those
of one token first, then by length in the order given, as in transformers. Equal scores with equal bias stay
equal; masked tokens stay masked, since a bias is finite or -inf. Left padding is no text, other than in
transformers. Rows are read off the history, so beams and drafting need no state. Not supported: biases of
their own for each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode

from ..begun import Begun
from ..row_ops import as_ints, padded, shortest

if TYPE_CHECKING:
    from collections.abc import Mapping


Token = Annotated[int, Field(ge=0)]
Sequence = Annotated[tuple[Token, ...], Field(min_length=1), BeforeValidator(as_ints)]


def as_pairs(value: Any) -> Any:
    """transformers' two spellings: `{(1, 2): -1.0}` and `[[[1, 2], -1.0]]`; the latter comes out."""
    return list(value.items()) if hasattr(value, "items") else value


class SequenceTable:
    """Biases of sequences, ready for one vocabulary.

    Args:
        biases: by sequence.
        vocab_size: width of the scores; a token beyond raises `ParameterError`, naming `key`.
        device: of the scores.
        key: the parameter, for the message.
        more: so many tokens more than the sequence's beginning must a row have.
    """

    def __init__(
        self, biases: Mapping[tuple[int, ...], float], vocab_size: int, device: Any, key: str, more: int = 0
    ) -> None:
        outside = sorted({token for tokens in biases for token in tokens if token >= vocab_size})
        if outside:
            raise genmode.ParameterError(
                f"{key}: tokens {outside} are outside the vocabulary of {vocab_size}; remove them"
            )
        self._more = more
        lasts = sorted({tokens[-1] for tokens in biases})
        position = {token: i for i, token in enumerate(lasts)}
        self._lasts = torch.tensor(lasts, dtype=torch.long, device=device)  # [k]
        self._single = torch.zeros(len(lasts), device=device)  # [k], biases of one token
        groups: dict[int, list[tuple[tuple[int, ...], float]]] = {}
        for tokens, bias in biases.items():
            if len(tokens) == 1:
                self._single[position[tokens[0]]] = bias
            else:
                groups.setdefault(len(tokens) - 1, []).append((tokens, bias))
        self._groups = [  # beginnings [s, n - 1], where each ends in `lasts` [s], biases [s]
            (
                torch.tensor([tokens[:-1] for tokens, _ in group], device=device),
                torch.tensor([position[tokens[-1]] for tokens, _ in group], device=device),
                torch.tensor([bias for _, bias in group], device=device),
            )
            for group in groups.values()
        ]

    def add(self, scores: Tensor, history: genmode.History) -> Tensor:
        """Bias the scores `[rows, vocab]` in place."""
        padding = bool(self._groups) and padded(history)
        bias = self._single.to(scores.dtype).repeat(scores.shape[0], 1)  # [rows, k]
        for beginnings, lasts, biases in self._groups:
            length = beginnings.shape[1]
            matches = (history.tail(length)[:, None] == beginnings).all(-1)  # [rows, s]
            if shortest(history) < length + self._more or padding:
                matches &= (history.lengths - history.starts >= length + self._more)[:, None]
            bias.index_add_(1, lasts, torch.where(matches, biases, 0.0).to(bias.dtype))
        return scores.index_copy_(1, self._lasts, scores.index_select(1, self._lasts) + bias)


class SequenceBias(genmode.LogitsProcessor, genmode.StandIn):
    """Add a bias to tokens that complete given sequences.

    Stage bias; reads tokens alone; writes in place; `[rows, vocab]` of any floating type. Raises
    `ParameterError` for tokens outside the vocabulary. Native equal of transformers'
    `SequenceBiasLogitsProcessor`; transformers 5.13 asks for a row one token longer than the sequence's
    beginning, and an object of that release is followed.
    """

    contract_version = 1
    name = "sequence_bias"
    stage = genmode.Stage.BIAS
    replaces = ("SequenceBiasLogitsProcessor",)

    class Params(genmode.Params):
        sequence_bias: Annotated[
            tuple[tuple[Sequence, Annotated[float, Field(lt=torch.inf, allow_inf_nan=True)]], ...],
            BeforeValidator(as_pairs),
        ] = Field((), description="pairs of a list of tokens and its bias, e.g. [[[10, 45], -2.0]]")

    _table: Begun[SequenceTable] = Begun()

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._more = 0

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> SequenceBias:
        """The biases of the transformers object, and whether its release wants one more token."""
        own = cls(sequence_bias=theirs.sequence_bias)
        own._more = 0 if hasattr(theirs, "multi_token_biases") else 1
        return own

    def begin(self, context: genmode.Context) -> None:
        biases = dict(self.params.sequence_bias)
        self._table = SequenceTable(biases, context.vocab_size, context.device, "sequence_bias", self._more)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return self._table.add(scores, history)

    def reset(self) -> None:
        self._table = None
