"""DRY, "don't repeat yourself" (p-e-w 2024, text-generation-webui pull request 5677).

Let x be a row of length L. For a column i < L - 1, m[i] is the length of the longest common suffix of
x[0 .. i] and of the whole row x[0 .. L-1], cut at sequence breakers, which match nothing. A token v that is
no breaker is about to repeat the longest of those sequences that it followed before:

    n(v) = max { m[i] : x[i+1] = v }
    score[v] -= multiplier * base ** (n(v) - allowed_length)    if n(v) >= allowed_length

Lengths beyond 50 count as 50, which keeps the power finite, as in the reference. With a range only the last
so many tokens of the row exist. A penalty that float32 cannot hold is its largest number, so scores never
become NaN; equal scores stay equal where n(v) is equal, and masked tokens stay masked.

When a row grows by a token t, at column L, the array of matches is updated by one vector operation over
`[rows, length]`:  m'[i] = m[i-1] + 1 if x[i] = t and t is no breaker, else 0.  After a rollback, and at the
first step, it is computed anew by 50 such operations.

A breaker that is text is every token whose text has it, so a newline breaks also inside of a token such as ".\\n" (the
reference takes one token for it). A text that no token has whole stands for the last token of "a" followed by it.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

import genmode
from genmode.text import TokenizerCache, token_bytes

from ..begun import Begun
from ..order import preceding
from ..row_ops import columns, lower, shortest

LONGEST = 50
BREAKERS = ("\n", ":", '"', "*")


class Dry(genmode.LogitsProcessor):
    """Penalise tokens that would go on with a sequence which the row has already had.

    Stage penalty; reads tokens alone; writes in place; `[rows, vocab]` of any floating type. Raises
    `ParameterError` for a breaker outside the vocabulary, for one that is text without a tokenizer, and for
    one that the tokenizer leaves without a token.
    """

    contract_version = 1
    name = "dry"
    paper = "p-e-w 2024, text-generation-webui pull request 5677"
    stage = genmode.Stage.PENALTY
    after = preceding("dry")

    class Params(genmode.Params):
        dry_multiplier: float = Field(
            0.0,
            ge=0,
            description="penalty at the allowed length; 0 is off, 0.8 is usual",
        )
        dry_base: float = Field(1.75, ge=1, description="factor for each further repeated token")
        dry_allowed_length: int = Field(2, ge=1, description="shortest repetition that is penalised, in tokens")
        dry_penalty_last_n: int = Field(0, ge=0, description="look at so many last tokens; 0 for all")
        dry_sequence_breakers: tuple[Annotated[int, Field(ge=0)] | str, ...] | None = Field(
            None,
            description="tokens, or texts, across which nothing repeats; by default newline, colon, quote "
            "and asterisk where the tokenizer is known",
        )

    _penalties: Begun[Tensor] = Begun()  # [LONGEST + 1], float32, by length of the match
    _breakers: Begun[Tensor] = Begun()  # [vocab], bool

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._reset_matches()

    def _reset_matches(self) -> None:
        self._matches: Tensor | None = None  # [rows, length - 1], int32: m
        self._length: int | None = None  # of all rows when m was computed; None where they differed
        self._accepted = 0  # tokens since then

    def begin(self, context: genmode.Context) -> None:
        params = self.params
        length = torch.arange(LONGEST + 1, dtype=torch.float64)
        penalties = params.dry_multiplier * params.dry_base ** (length - params.dry_allowed_length)
        penalties = torch.where(length < params.dry_allowed_length, 0.0, penalties)
        self._penalties = penalties.clamp(max=torch.finfo(torch.float32).max).to(context.device, torch.float32)
        ids = breaker_ids(params.dry_sequence_breakers, context)
        self._breakers = torch.zeros(context.vocab_size, dtype=torch.bool, device=context.device)
        self._breakers[torch.tensor(ids, dtype=torch.long, device=context.device)] = True
        self._reset_matches()

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        penalties, breakers = self._penalties, self._breakers
        tokens = history.tokens
        last_n = min(self.params.dry_penalty_last_n, tokens.shape[1])
        end = tokens.shape[1] - 1
        if self.params.dry_multiplier == 0 or end < 1:
            return scores
        matches = self._update(history, tokens, breakers)
        first = max(0, shortest(history) - last_n) if last_n else 0  # no row's range begins before it
        repeated = matches[:, first:end]
        if last_n:  # a match cannot begin before the range does
            most = columns(matches)[:, first:end] - (history.lengths[:, None] - (last_n + 1))
            repeated = torch.minimum(repeated, most.clamp_(min=0).to(repeated.dtype))
        following = tokens[:, first + 1 : end + 1]
        known = following < scores.shape[1]
        index = following.clamp(0, scores.shape[1] - 1)
        penalty = penalties[repeated].masked_fill_(breakers[index] | ~known, 0.0)
        # Of several matches before one token the longest counts: the least score.
        return lower(scores, index, scores.gather(1, index) - penalty.to(scores.dtype))

    def accept(self, tokens: Tensor) -> None:
        self._accepted += 1

    def reorder(self, rows: Tensor) -> None:
        if self._matches is not None:
            self._matches = self._matches[rows]

    def rollback(self, counts: Tensor) -> None:
        self._reset_matches()

    def reset(self) -> None:
        self._reset_matches()
        self._penalties = self._breakers = None

    def _update(self, history: genmode.History, tokens: Tensor, breakers: Tensor) -> Tensor:
        """m for the history's rows, from the last one if nothing but further tokens came since."""
        if history.level is not None and self._length is not None:
            steps = history.level - self._length
        else:
            steps = self._accepted
        width = tokens.shape[1]
        known = self._matches is not None and self._matches.shape[1] + steps >= width - 1
        if self._matches is None or not known or not 0 <= steps <= LONGEST:
            self._matches = compute(history, breakers)
        elif steps:
            ends, text = history.tail(steps), history.inside
            for step in range(steps):
                back = steps - step  # so many columns before the row's end it ended then
                inside = text_before(text, back)
                self._matches = grow(self._matches, tokens[:, : width - back], ends[:, step], inside, breakers)
        self._length, self._accepted = history.level, 0
        return self._matches


def text_before(inside: Tensor, back: int) -> Tensor:
    """Which of the columns `[0, width - back)` hold text that is not among a row's last `back` tokens: bool."""
    return inside[:, :-back] & inside[:, back:]


def grow(matches: Tensor, tokens: Tensor, end: Tensor, inside: Tensor, breakers: Tensor) -> Tensor:
    """m' of rows whose new last token is `end` `[rows]`; of the shape of `tokens`, int32."""
    longer = torch.ones_like(tokens, dtype=torch.int32)  # m[i-1] + 1
    count = min(matches.shape[1], tokens.shape[1] - 1)
    longer[:, 1 : count + 1] += matches[:, :count]
    same = (tokens == end[:, None]) & inside & ~is_breaker(end, breakers)[:, None]
    return longer.clamp_(max=LONGEST).masked_fill_(~same, 0)


def compute(history: genmode.History, breakers: Tensor) -> Tensor:
    """m from its definition, by one comparison of shifted rows for each length up to 50: `[rows, width - 1]`, int32."""
    tokens = history.tokens[:, :-1]
    width = tokens.shape[1]
    count = min(LONGEST, width)
    ends = history.tail(count)
    broken = is_breaker(ends, breakers)
    inside = alive = text_before(history.inside, 1)
    matches = torch.zeros_like(tokens, dtype=torch.int32)
    for back in range(count):
        same = (tokens[:, : width - back] == ends[:, -1 - back, None]) & ~broken[:, -1 - back, None]
        same &= inside[:, : width - back]
        alive = alive[:, alive.shape[1] - (width - back) :] & same
        matches[:, back:] += alive
    return matches


def is_breaker(tokens: Tensor, breakers: Tensor) -> Tensor:
    """Which `tokens` are breakers; ids beyond the vocabulary are not."""
    last = breakers.shape[0] - 1
    return breakers[tokens.clamp(0, last)] & (tokens <= last)


def breaker_ids(given: tuple[int | str, ...] | None, context: genmode.Context) -> list[int]:
    """The ids of the sequence breakers; raises `ParameterError`."""
    tokenizer: Any = context.tokenizer
    if given is None:
        given = () if tokenizer is None else BREAKERS
    needed = given is not BREAKERS
    ids: list[int] = []
    for breaker in given:
        if isinstance(breaker, int):
            if breaker >= context.vocab_size:
                raise genmode.ParameterError(
                    f"dry_sequence_breakers: id {breaker} is outside the vocabulary of {context.vocab_size}"
                )
            ids.append(breaker)
            continue
        if tokenizer is None:
            raise genmode.ParameterError(
                f"dry_sequence_breakers: {breaker!r} is text and there is no tokenizer; pass tokenizer= or ids"
            )
        found = _found.get(
            tokenizer, (breaker, context.vocab_size, len(tokenizer)), partial(tokens_of, breaker, context)
        )
        if not found and needed:
            raise genmode.ParameterError(f"dry_sequence_breakers: the tokenizer has no token for {breaker!r}")
        ids += found
    return ids


_found: TokenizerCache[list[int]] = TokenizerCache(16)
"""The ids of the last few texts of each tokenizer."""


def tokens_of(text: str, context: genmode.Context) -> list[int]:
    """The tokens whose bytes have the text, or else the last token of "a" followed by it; none if it leaves none."""
    tokenizer, written = context.tokenizer, text.encode()
    texts = token_bytes(tokenizer)[: context.vocab_size] if text else []
    found = [token for token, one in enumerate(texts) if written in one]
    if found:
        return found
    encoded: list[int] = tokenizer.encode("a" + text, add_special_tokens=False)
    if not encoded or encoded == tokenizer.encode("a", add_special_tokens=False):
        return []
    return [] if encoded[-1] == tokenizer.unk_token_id or encoded[-1] >= len(texts) else encoded[-1:]
