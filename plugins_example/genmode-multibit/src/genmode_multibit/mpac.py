"""MPAC: a watermark that carries a message, by position allocation.

Yoo, Ahn and Kwak 2024, "Advancing Beyond Identification: Multi-bit Watermark for Large Language Models via Position
Allocation", NAACL, https://arxiv.org/abs/2308.00221, algorithms 1 and 2. The message is a row of symbols m_1 .. m_b, each
of r values. At every step a keyed hash of the last `context_width` tokens picks a symbol's position p and paints each
token of the vocabulary in one of r colours; the tokens whose colour is the symbol gain a constant:

    score[v] += bias    if colour(v) = m_p

To read a text, each token votes for its colour at its position, and the most votes win. Here the hash paints every token
by itself, in place of a permutation of the vocabulary, so that in text without the mark colours of different (context,
token) are independent and uniform: no text needs the vocabulary's size, and the null is exact.

Detection gives each token the value 1 if its colour is the symbol, else 0. With a `message` given, the symbol is the
message's. Without one it is what the votes before this token say at its position, and tokens at a position without
votes are not counted:

    value_t = [colour(x_t) = argmax over c of votes_{<t}(p_t, c)]

A prediction from the past is right with probability 1 / r, whatever the past, so the number of ones is a binomial
variable with that rate, exactly, and passages can be looked for as well. Tokens that repeat a context and token are
counted, and vote, once. Of equal votes the lower colour is predicted; `read` leaves such a symbol open.

Equal scores stay equal within a colour, and masked tokens stay masked. A row with fewer tokens of its own than the
context is left unmarked. Not supported here: list decoding and the error-correcting codes of the paper's appendix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

import genmode
from genmode.watermark import Bernoulli, first_of_each, judge, padded, token_ids

from .hashing import chain, contexts, number, words

BITS = 16


class Reading(NamedTuple):
    """What `Mpac.read` finds in one text."""

    message: str
    """Its bits; `?` where no votes, or equal ones, leave a symbol open."""
    votes: tuple[tuple[int, ...], ...]
    """Of each symbol, in order, the votes for each of its values."""
    detection: genmode.Detection
    """Whether there is a mark at all; of text without one, the message is chance."""


class Mpac(genmode.Watermarker):
    """Marks text with a message of several bits. Stage watermark; writes in place; `[rows, vocab]`, float32."""

    contract_version = 1
    name = "mpac"
    paper = "Yoo et al. 2024, Multi-bit Watermark via Position Allocation, https://arxiv.org/abs/2308.00221"
    skip_checks: ClassVar[Mapping[str, str]] = {"parameters_have_defaults": "a key is a secret, and has no default"}

    class Params(genmode.Params):
        """Parameters of `mpac`."""

        model_config = ConfigDict(hide_input_in_errors=True)

        key: int | str = Field(description="the secret; text is hashed to 64 bits")
        message: str | None = Field(
            None, pattern="^[01]+$", max_length=512, description="bits to write, such as '1011', zeros if not given; "
            "with it, detection looks for this message, else for any"
        )  # fmt: skip
        bits: int | None = Field(
            None, ge=1, le=512, description=f"length of the message; if not given, that of `message`, or {BITS}"
        )
        colours: Literal[2, 4, 16] = Field(4, description="values of a symbol, which has 1, 2 or 4 bits")
        bias: float = Field(2.0, gt=0, description="what the symbol's tokens gain")
        context_width: int = Field(1, ge=1, le=16, description="tokens of context that positions and colours depend on")

        @model_validator(mode="after")
        def _lengths(self) -> Any:
            bits, each = self.length, self.colours.bit_length() - 1
            if self.message is not None and len(self.message) != bits:
                raise ValueError(
                    f"message has {len(self.message)} bits, and bits={bits}; leave bits out, or make them equal"
                )
            if bits % each:
                raise ValueError(
                    f"a message of {bits} bits is no whole number of symbols of {each} bits; add {-bits % each}"
                )
            return self

        @property
        def length(self) -> int:
            """Bits of the message."""
            return self.bits or (BITS if self.message is None else len(self.message))

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.key = number(self.params.key)
        self.colours: int = self.params.colours
        self.bits_each = self.colours.bit_length() - 1
        self.symbols = self.params.length // self.bits_each
        text = self.params.message or "0" * self.params.length
        parts = [text[i : i + self.bits_each] for i in range(0, len(text), self.bits_each)]
        self.message = torch.tensor([int(part, 2) for part in parts])  # [symbols]
        self._written = self.message

    def begin(self, context: genmode.Context) -> None:
        """Put the message where the scores are."""
        self._written = self.message.to(context.device)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        width = self.params.context_width
        ready = (history.lengths - history.starts >= width)[:, None]  # [rows, 1]
        keys = contexts(self.key, history.tail(width))[:, None]
        wanted = self._written[self.position(keys)]  # [rows, 1]
        raised = (self.colours_of_all(keys, scores.shape[1]) == wanted) & ready
        return scores.add_(raised, alpha=self.params.bias)

    def position(self, keys: Tensor) -> Tensor:
        """Which symbol each context writes, of the shape of `keys`."""
        numbers: Tensor = chain(keys, torch.full_like(keys, -2)) >> 1 & (2**62 - 1)
        return numbers.remainder(self.symbols)

    def colours_of_all(self, keys: Tensor, vocab: int) -> Tensor:
        """The colour of every token under `keys` `[rows, 1]`: `[rows, vocab]`, int64; several tokens share a word."""
        each = 64 // self.bits_each
        packed = words(keys, torch.arange((vocab + each - 1) // each, device=keys.device))
        shifts = torch.arange(0, 64, self.bits_each, device=keys.device)
        unpacked = packed[:, :, None] >> shifts & (self.colours - 1)
        return unpacked.flatten(1)[:, :vocab]

    def colour(self, keys: Tensor, tokens: Tensor) -> Tensor:
        """The colour of one token under each key: all `[n]`."""
        each = 64 // self.bits_each
        packed = words(keys[:, None], (tokens // each)[:, None])[:, 0]
        painted: Tensor = packed >> tokens % each * self.bits_each
        return painted & (self.colours - 1)

    def evidence(self, tokens: Tensor, statistic: Tensor | None) -> genmode.Evidence:
        tokens = tokens.cpu()
        positions, colours, draws = self._painted(tokens)
        there = fresh(positions, draws)
        if self.params.message is not None:
            expected = self.message[positions.clamp(min=0)]
        else:
            before = self._votes(positions, colours, there)[:, :-1]  # of the tokens before each
            index = positions.clamp(min=0)[:, :, None, None].expand(-1, -1, 1, self.colours)
            most, expected = before.gather(2, index)[:, :, 0].max(-1)
            there = there & (most > 0)
        values = (colours == expected).double().masked_fill(~there, torch.nan)
        return genmode.Evidence(values, draws)

    def null(self) -> genmode.Null:
        return Bernoulli(1 / self.colours)

    def read(self, texts: Any, tokenizer: Any = None) -> list[Reading]:
        """The message of each text, and whether there is one.

        Args:
            texts: as for `genmode.detect`: strings, token ids, or a tensor with negative ids as padding.
            tokenizer: for strings; the one of the model.
        """
        ids, _ = token_ids(texts, tokenizer)
        if not ids:
            return []
        tokens = padded(ids)
        positions, colours, draws = self._painted(tokens)
        votes = self._votes(positions, colours, fresh(positions, draws))[:, -1]  # [texts, symbols, colours]
        best = votes.topk(2, dim=-1)
        clear = best.values[:, :, 0] > best.values[:, :, 1]
        found: list[Reading] = []
        for symbols, sure, counts, seen in zip(
            best.indices[:, :, 0].tolist(), clear.tolist(), votes.tolist(), judge(self, tokens), strict=True
        ):
            parts = [
                f"{s:0{self.bits_each}b}" if c else "?" * self.bits_each for s, c in zip(symbols, sure, strict=True)
            ]
            found.append(Reading("".join(parts), tuple(tuple(count) for count in counts), seen))
        return found

    def _painted(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Position (-1 for tokens without context), colour and draw of each token of texts, `[texts, length]`, long."""
        width = self.params.context_width
        positions, colours, draws = torch.full_like(tokens, -1), torch.zeros_like(tokens), torch.zeros_like(tokens)
        if tokens.shape[1] > width:
            windows = tokens.unfold(1, width + 1, 1)  # [texts, length - width, width + 1]
            there = (windows >= 0).all(-1)
            flat = windows.flatten(0, 1)
            keys, last = contexts(self.key, flat[:, :-1]), flat[:, -1].clamp(min=0)
            shape = there.shape
            positions[:, width:] = self.position(keys).view(shape).masked_fill(~there, -1)
            colours[:, width:] = self.colour(keys, last).view(shape)
            draws[:, width:] = chain(keys, last).view(shape)
        return positions, colours, draws

    def _votes(self, positions: Tensor, colours: Tensor, there: Tensor) -> Tensor:
        """Votes of the first 0, 1 .. tokens, of those that are `there`: `[texts, length + 1, symbols, colours]`, long."""
        ballots = torch.zeros(*positions.shape, self.symbols * self.colours, dtype=torch.long)
        ballots.scatter_(2, (positions.clamp(min=0) * self.colours + colours)[:, :, None], there[:, :, None].long())
        counts = torch.nn.functional.pad(ballots.cumsum(1), (0, 0, 1, 0))
        return counts.view(len(positions), -1, self.symbols, self.colours)


def fresh(positions: Tensor, draws: Tensor) -> Tensor:
    """Which tokens have a context, and read a draw that the text has not read before: `[texts, length]`, bool.

    A repeated token agrees with its own earlier vote, which says nothing for a mark.
    """
    return torch.stack([first_of_each(*one) for one in zip(draws, positions >= 0, strict=True)])
