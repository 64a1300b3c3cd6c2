"""Structured output: every row is a text of a grammar.

Before each token, the scores of all tokens that no text of the grammar could go on with become -inf; an end of
sequence is allowed where, and only where, the text so far is complete. The rest keep their scores. What a grammar
is stands in `requests`, what works out the masks in `engines`.

Each row has a matcher. It follows the row through reorders (beams: copied where a row goes on twice), through
drafts that are walked and taken back, and begins anew with each call. Masks are put onto the scores in one
operation for all rows; working them out is done row by row on the host, by the engine.

A matcher needs the chosen tokens on the host, so on a device the host waits once in each step, see `events`.

Forced text. Where a grammar leaves only one text to go on with, `forced_tokens` gives it as a draft: the strategies
that may draft run the whole stretch in one forward, and every row takes as much of it as it would have chosen
itself under the masks. So the result is the same, whichever tokens the model spells the stretch with.

Ties keep their order. Not supported: a grammar of its own for each row.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import genmode
from genmode import host_sync

from ..begun import Begun
from ..order import CONSTRAINTS
from .events import Events
from .matchers import EngineName, Vocabulary, Words, compiled, mask_of
from .requests import wanted
from .row_state import Row, forbid_all_but

State = Literal["complete", "cut", "outside"]


class UnmetGrammarWarning(UserWarning):
    """Results that are no whole text of the grammar.

    Attributes:
        states: of each result, "complete", "cut" (a beginning of a text of the grammar), or "outside".
    """

    def __init__(self, message: str, states: Sequence[State]) -> None:
        super().__init__(message)
        self.states = tuple(states)


def _plain(value: Any) -> Any:
    return None if value is None else wanted(value).plain()


class Grammar(genmode.LogitsProcessor):
    """Allow only what a grammar allows.

    Stage constraint, behind all others of it; reads tokens alone; writes in place; `[rows, vocab]` of any
    floating type. The object may serve one call after another.

    Attributes:
        results: of each result of the last call, "complete", "cut" or "outside"; empty before it has ended.
        forced: of each result of a call with a watermark, the share of its tokens to which the grammar left no
            alternative, so that they carry no mark; empty without a watermark.

    Raises:
        ParameterError: before the model runs, for a grammar that no installed engine understands or that no
            token begins, and without tokenizer or end of sequence.
        DecodingError: a row cannot go on, or took a token that the grammar does not allow; names row and position.
    """

    contract_version = 1
    name = "grammar"
    paper = "Willard and Louf 2023, Efficient Guided Generation, https://arxiv.org/abs/2307.09702"
    stage = genmode.Stage.CONSTRAINT
    after = CONSTRAINTS
    traits = frozenset({genmode.Trait.HOST_SYNC, genmode.Trait.FORCES})

    class Params(genmode.Params):
        grammar: Annotated[Any, BeforeValidator(_plain)] = Field(
            None, description='{"regex": ...}, {"json_schema": ...}, {"ebnf": ...}, {"lark": ...}, choices, a class'
        )
        grammar_engine: EngineName = Field("auto", description="who works out the masks; auto: the first that takes it")
        grammar_whitespace: bool = Field(False, description="allow white space between the parts of JSON")
        grammar_jump_forward: bool = Field(True, description="run text that the grammar forces in one forward")

    _call: Begun[_Call] = Begun()

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self.results: tuple[State, ...] = ()
        self.forced: tuple[float, ...] = ()

    def begin(self, context: genmode.Context) -> None:
        params = self.params
        if params.grammar is None:
            given = ", ".join(sorted(params.model_fields_set - {"grammar"})) or "the processor 'grammar'"
            raise genmode.ParameterError(f"{given} is given without a grammar; set grammar=")
        if context.tokenizer is None:
            raise genmode.ParameterError("grammar needs the tokenizer; pass tokenizer= to generate")
        if not [i for i in context.eos_token_ids if 0 <= i < context.vocab_size]:
            raise genmode.ParameterError(
                "grammar needs an end of sequence, or a row could not stop where its text is complete; set eos_token_id"
            )
        source = wanted(params.grammar)
        grammar, vocabulary, engine = compiled(source, params.grammar_engine, params.grammar_whitespace, context)
        ends = mask_of(vocabulary.ends, vocabulary.words)
        root = Row(grammar.matcher(), vocabulary)
        if not (root.mask(ends) & ~ends).any():
            raise genmode.ParameterError(
                f"grammar: no token of this tokenizer begins a text of the {source.kind}, as {engine} reads it; "
                "correct the grammar, or take a tokenizer that has its characters"
            )
        self.results, self.forced = (), ()
        self._call = _Call(context, vocabulary, engine, ends, root, [root.copy() for _ in range(context.rows)])

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        call = self._call
        rows = call.caught_up()
        allowed = np.stack([row.mask(call.ends) for row in rows])  # [rows, words]
        if history is call.context.history and not call.reordered:  # no draft, and no beams
            self._check(call, allowed)
        return forbid_all_but(scores, allowed)

    def accept(self, tokens: Tensor) -> None:
        self._call.events.put("accept", tokens)

    def reorder(self, rows: Tensor) -> None:
        call = self._call
        call.reordered = True
        call.events.put("reorder", rows)

    def rollback(self, counts: Tensor) -> None:
        self._call.events.put("rollback", counts)

    def forced_tokens(self, limit: int) -> tuple[Tensor, Tensor] | None:
        if not self.params.grammar_jump_forward:
            return None
        call = self._call
        forced = [row.forced(call.ends, limit) for row in call.caught_up()]
        longest = max(map(len, forced))
        if longest == 0:
            return None
        filled = [one + [one[-1] if one else 0] * (longest - len(one)) + [len(one)] for one in forced]
        tokens = host_sync.to_device(torch.tensor(filled), call.context.device)
        return tokens[:, :-1], tokens[:, -1]

    def on_finish(self, sequences: Tensor) -> None:
        call = self._call
        marked = any(isinstance(one, genmode.Watermarker) for one in call.context.processors)
        judged = [call.judged(one, marked) for one in sequences[:, call.context.prompt_length :].tolist()]
        found = [row for row, _ in judged]
        self.results = tuple("outside" if row.dead else "complete" if row.complete else "cut" for row in found)
        if marked:
            self.forced = tuple(share for _, share in judged)
        outside = [i for i, state in enumerate(self.results) if state == "outside"]
        cut = [i for i, state in enumerate(self.results) if state == "cut"]
        if outside and not call.reordered:
            raise self._left(call, outside[0], found[outside[0]])
        if not outside and not cut:
            return
        told = [f"{_numbers(cut)} cut in the middle"] if cut else []
        if outside:
            told.append(f"{_numbers(outside)} outside the grammar, which has too few texts for so many beams")
        room = call.context.max_length - call.context.prompt_length
        warnings.warn(
            UnmetGrammarWarning(
                f"{len(cut) + len(outside)} of {len(sequences)} results are no whole text of the grammar: "
                f"{'; '.join(told)}. There was room for {room} tokens: give more max_new_tokens, bound what the grammar "
                "repeats, take out criteria that stop rows early, or ask for fewer results",
                self.results,
            ),
            stacklevel=2,
        )

    def reset(self) -> None:
        self._call = None

    def _check(self, call: _Call, allowed: Words) -> None:
        """Refuse to go on with a row that left the grammar or cannot go on; padding is neither."""
        stuck = (~allowed.any(1)).nonzero()[0].tolist()
        left = [i for i, row in enumerate(call.rows) if row.dead and not row.over]
        if not stuck and not left:
            return
        running: list[bool] = call.context.unfinished.tolist()
        for i in left:
            if running[i]:
                raise self._left(call, i, call.rows[i])
            call.rows[i].over = True
        for i in stuck:
            if running[i]:
                raise self._stuck(call, i, call.rows[i])

    def _stuck(self, call: _Call, place: int, row: Row) -> genmode.DecodingError:
        why = (
            f"no token of this tokenizer continues it as {call.engine} reads the grammar; take a tokenizer that has the "
            "characters which must come there, change the grammar"
        )
        if surrender := row.matcher.surrender:
            why = (
                f"the grammar is too much for {call.engine} ({surrender}); have it say in fewer ways how a text is made up, "
                "such as without counters within counters"
            )
        return genmode.DecodingError(
            f"grammar: row {place} cannot go on at position {row.taken} of its output: {why}, or try another "
            "grammar_engine",
            component=self.name,
            row=place,
        )

    def _left(self, call: _Call, place: int, row: Row) -> genmode.DecodingError:
        if row.stuck or row.matcher.surrender:
            return self._stuck(call, place, row)
        if row.refused:
            return genmode.DecodingError(
                f"grammar: row {place} took token {row.token} at position {row.taken} of its output, which {call.engine} "
                "had allowed and then found no way to go on from; a rule that never ends, such as one that always "
                "contains itself, has no text: give it another way out, or try another grammar_engine",
                component=self.name,
                row=place,
            )
        others = ", ".join(one.name for one in call.context.processors if one is not self)
        return genmode.DecodingError(
            f"grammar: row {place} took token {row.token} at position {row.taken} of its output, which the grammar does "
            "not allow; the strategy, or a processor that forces, bans or marks tokens, left it no other"
            + (f" (in force: {others})" if others else "")
            + "; leave that out, or change the grammar",
            component=self.name,
            row=place,
        )


@dataclass
class _Call:
    """What a call needs.

    Attributes:
        context, vocabulary, engine: the call, its vocabulary, and the name of the engine that works out the masks.
        ends: `[words]`: the mask of the ends of sequence.
        root: a row at the beginning.
        rows: where each row stands, as of the events that were read.
        events: what has happened since.
        reordered: whether rows have been reordered, as beams are.
    """

    context: genmode.Context
    vocabulary: Vocabulary
    engine: str
    ends: Words
    root: Row
    rows: list[Row]
    events: Events = field(default_factory=Events)
    reordered: bool = False

    def caught_up(self) -> list[Row]:
        """The rows, once all that has happened to them is done to their matchers."""
        for what, values in self.events.take():
            if what == "reorder":
                self.rows = [
                    self.rows[i] if i not in values[:place] else self.rows[i].copy() for place, i in enumerate(values)
                ]
                continue
            for row, value in zip(self.rows, values, strict=True):
                if what == "accept":
                    row.advance(value)
                else:
                    row.back(value)
        return self.rows

    def judged(self, tokens: list[int], marked: bool) -> tuple[Row, float]:
        """Where a result ends in the grammar, and the share of its tokens that were forced; 0.0 unless `marked`.

        Args:
            tokens: those that were decoded, and padding.
            marked: whether to ask which were forced, which costs each token's mask again.
        """
        pad, ends = self.context.pad_token_id, self.vocabulary.ends
        row = self.root.copy()
        forced = count = 0
        for place, token in enumerate(tokens):
            over = token < 0 or (token == pad and token not in ends and not self.vocabulary.text(token))
            if over or row.beyond:  # what follows is padding
                break
            if token in ends and not row.complete and not any(self.vocabulary.text(one) for one in tokens[place:]):
                break  # rows that a criterion stops are padded with the end of sequence
            count += 1
            forced += marked and row.alone(self.ends)
            row.advance(token)
        if row.dead:
            row.back(1)
            row.mask(self.ends)
            row.advance(row.token)
        return row, forced / max(1, count)


def _numbers(places: list[int]) -> str:
    return ("number " if len(places) == 1 else "numbers ") + ", ".join(map(str, places))
