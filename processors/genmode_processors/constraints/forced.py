"""Tokens that must come: first, last, or by a callback.

Forcing tokens sets their scores to 0 and all others to -inf, in the rows that it concerns; several forced
tokens tie. The callback names the tokens that a row may continue with, and keeps their scores. Where it allows
only tokens that are masked before, none is left, which is an error (transformers 5.23 lets those through).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode

from ..order import preceding
from ..row_ops import as_ints, force, in_vocabulary, shortest

if TYPE_CHECKING:
    from collections.abc import Iterable


Allowed = Callable[[int, Tensor], "list[int]"]


def known_tokens(ids: Iterable[int], context: genmode.Context, key: str) -> Tensor:
    """`[count]`, long; raises `ParameterError` if one is outside the vocabulary."""
    ids = list(ids)
    outside = [i for i in ids if not 0 <= i < context.vocab_size]
    if outside:
        raise genmode.ParameterError(f"{key}: {outside} outside the vocabulary of {context.vocab_size}")
    return in_vocabulary(ids, context.vocab_size, context.device)


class ForcedBos(genmode.LogitsProcessor, genmode.StandIn):
    """Force the token behind the decoder's start token: acts where a row is one token long.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Raises
    `ParameterError` for an id outside the vocabulary. Native equal of transformers'
    `ForcedBOSTokenLogitsProcessor`.
    """

    contract_version = 1
    name = "forced_bos"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("forced_bos")
    replaces = ("ForcedBOSTokenLogitsProcessor",)
    traits = frozenset({genmode.Trait.FORCES})

    class Params(genmode.Params):
        forced_bos_token_id: int | None = Field(None, ge=0, description="token that comes first; none by default")

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._tokens: Tensor | None = None

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> ForcedBos:
        """The token of the transformers object."""
        return cls(forced_bos_token_id=theirs.bos_token_id)

    def begin(self, context: genmode.Context) -> None:
        if self.params.forced_bos_token_id is not None:
            self._tokens = known_tokens([self.params.forced_bos_token_id], context, "forced_bos_token_id")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return force_at(scores, history, self._tokens, 1)

    def reset(self) -> None:
        self._tokens = None


class ForcedEos(genmode.LogitsProcessor, genmode.StandIn):
    """Force the end of sequence as the last token that the maximal length leaves.

    Stage constraint; reads lengths alone; writes in place; `[rows, vocab]` of any floating type. Raises
    `ParameterError` for ids outside the vocabulary. Native equal of transformers'
    `ForcedEOSTokenLogitsProcessor`.
    """

    contract_version = 1
    name = "forced_eos"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("forced_eos")
    replaces = ("ForcedEOSTokenLogitsProcessor",)
    traits = frozenset({genmode.Trait.FORCES})

    class Params(genmode.Params):
        forced_eos_token_id: Annotated[tuple[int, ...], BeforeValidator(as_ints)] = Field(
            (), description="token or tokens that come last when max_length is reached"
        )

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._tokens: Tensor | None = None
        self._max_length: int | None = None
        self._last = 0

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> ForcedEos:
        """Tokens and maximal length of the transformers object, which with none would mask every token."""
        own = cls(forced_eos_token_id=theirs.eos_token_id)
        if not own.params.forced_eos_token_id:
            raise genmode.ParameterError("forced_eos_token_id names no token; give one or more ids, or leave it out")
        own._max_length = theirs.max_length
        return own

    def begin(self, context: genmode.Context) -> None:
        self._last = (context.max_length if self._max_length is None else self._max_length) - 1
        if self.params.forced_eos_token_id:
            self._tokens = known_tokens(self.params.forced_eos_token_id, context, "forced_eos_token_id")

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        return force_at(scores, history, self._tokens, self._last)

    def reset(self) -> None:
        self._tokens = None


def force_at(scores: Tensor, history: genmode.History, tokens: Tensor | None, length: int) -> Tensor:
    """Force `tokens` in the rows that are `length` long."""
    least, most = shortest(history), history.tokens.shape[1]
    if tokens is None or not least <= length <= most:
        return scores
    return force(scores, tokens, None if least == most else history.lengths == length)


class PrefixAllowedTokens(genmode.LogitsProcessor, genmode.StandIn):
    """Keep only the tokens that a function of the row's tokens allows.

    Stage constraint; writes in place; `[rows, vocab]` of any floating type. The function gets the number of
    the input and the tokens of one row, `[length]`, long, and returns ids; it is called for each row at each
    step, on the host, so it is as fast as it is written. A row that a strategy moved keeps the number of its
    input. Raises `ParameterError` if it returns none. Native equal of transformers'
    `PrefixConstrainedLogitsProcessor`.
    """

    contract_version = 1
    name = "prefix_allowed_tokens"
    paper = "De Cao et al. 2020, Autoregressive Entity Retrieval, arXiv:2010.00904"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("prefix_allowed_tokens")
    replaces = ("PrefixConstrainedLogitsProcessor",)
    traits = frozenset({genmode.Trait.FORCES})

    skip_checks: ClassVar[Mapping[str, str]] = {
        "no_synchronisation": "the caller's function is called on the host",
        "cost_of_rows": "the caller's function is called for one row at a time",
        "cost_of_step": "the caller's function is called for one row at a time",
    }

    class Params(genmode.Params):
        prefix_allowed_tokens_fn: Callable[..., Any] | None = Field(
            None, description="function of input number and tokens that returns the ids allowed next"
        )

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._beams: int | None = None
        self._inputs: list[int] = []  # of each row, the number of its input

    @classmethod
    def adopt(cls, theirs: Any, tokenizer: Any = None) -> PrefixAllowedTokens | None:
        """Function and beams of the transformers object, which it keeps to itself; None without them."""
        kept = cast("dict[str, Any]", vars(theirs))
        if not {"_prefix_allowed_tokens_fn", "_num_beams"} <= kept.keys():
            return None
        own = cls(prefix_allowed_tokens_fn=kept["_prefix_allowed_tokens_fn"])
        own._beams = kept["_num_beams"]
        return own

    def begin(self, context: genmode.Context) -> None:
        beams = self._beams or getattr(context.generation_config, "num_beams", None) or 1
        self._inputs = [row // beams for row in range(context.rows)]

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        function: Allowed | None = self.params.prefix_allowed_tokens_fn
        if function is None:
            return scores
        lengths = cast("list[int]", history.lengths.tolist())
        allowed: list[Tensor] = []
        for row, (source, length) in enumerate(zip(self._inputs, lengths, strict=True)):
            ids = function(source, history.tokens[row, :length])
            if len(ids) == 0:
                raise genmode.ParameterError(
                    f"prefix_allowed_tokens_fn allows nothing for input {source} after {length} tokens; "
                    "return at least one id"
                )
            allowed.append(torch.as_tensor(ids, dtype=torch.long, device=scores.device))
        kept = [scores[row, tokens] for row, tokens in enumerate(allowed)]
        scores.fill_(-torch.inf)
        for row, (tokens, score) in enumerate(zip(allowed, kept, strict=True)):
            scores[row, tokens] = score
        return scores

    def reorder(self, rows: Tensor) -> None:
        self._inputs = [self._inputs[row] for row in cast("list[int]", rows.tolist())]

    def reset(self) -> None:
        self._inputs = []
