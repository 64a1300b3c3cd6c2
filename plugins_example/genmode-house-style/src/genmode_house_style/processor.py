"""HouseStyle: terms that never appear in a text, as whole words, in any case, and what to write in their place.

Terms are looked for in the decoded text, whatever its tokens, see `automaton`: "cat" is found in "a CAT!" and not in
"concatenate". Whether "cat" is a word is known when the character behind it is, so a row writes on until then; an end of
sequence and the longest length count as a boundary. When a term is found, its row goes back to before the token in which
the term begins, and that token is forbidden there. A term that ends in the prompt does not count; of one that begins
there, what is in the prompt stays.

A row that has gone back `house_style_retries` times without becoming longer than before does not go back until it is:
meanwhile tokens that complete a term are masked, whether the word would end there or not, so that every row ends. Under
beams and other strategies whose rows cannot go back (`Context.backtracks`), and with no retries, that is so throughout. A
row of which that masks every token keeps its scores; a criterion that ends a row behind an open term leaves it there.
Either is warned of when the call has ended.

With `house_style_prefer`, the tokens of the preferred term gain `house_style_bias` where a row went back, one after the
other, as long as the row follows them: with the blank before it if the term had one. Ties of other tokens stay ties. Text
that has gone back is not distributed as the model's given that no term occurs: what follows is drawn anew, what led
there is not. Stage constraint; writes in place; `[rows, vocab]`, float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, StringConstraints
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.text import Retries, TokenStates

from .automaton import most_bytes
from .preferences import Preferences
from .tables import Tables, tables_of

Term = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
SLACK = 5
"""Tokens beside those of a term's bytes: the one behind it, and some without text."""


class HouseStyle(genmode.BacktrackingProcessor):
    """Keeps terms out of the text as whole words, in any case, and prefers others in their place."""

    contract_version = 1
    name = "house_style"
    stage = genmode.Stage.CONSTRAINT

    class Params(genmode.Params):
        """Parameters of `house_style`; each is a key of the generation config."""

        house_style_never: tuple[Term, ...] | tuple[tuple[Term, ...], ...] = Field(
            (), description="terms that never appear, or a list of them for each input", examples=[("C7", "b2 c", "d")]
        )
        house_style_prefer: Mapping[Term, Term] = Field(
            {}, description="terms that never appear either, each with the one to write in its place"
        )
        house_style_bias: float = Field(8.0, ge=0, description="what the next token of a preferred term gains")
        house_style_retries: int = Field(
            8, ge=0, le=1024, description="so often a row goes back without getting further; 0: never"
        )

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        never: tuple[Any, ...] = self.params.house_style_never
        self.by_input = bool(never) and not isinstance(never[0], str)
        lists = never if self.by_input else (never,)
        self.lists = [list(dict.fromkeys([*one, *self.params.house_style_prefer])) for one in lists]
        self.terms = list(dict.fromkeys(term for one in self.lists for term in one))
        self._span = max(map(most_bytes, self.terms), default=0) + SLACK
        self._tables: Tables | None = None
        self._retries: Retries | None = None

    @property
    def max_backtrack(self) -> int:
        """The most tokens that a term can be spelled in, with what stands behind it."""
        return self._span if self.params.house_style_retries and self.terms else 0

    def begin(self, context: genmode.Context) -> None:
        """Read the terms and the prompt.

        Raises:
            ParameterError: there is no tokenizer, or not one list for each input.
        """
        if not self.terms:
            return
        if context.tokenizer is None:
            raise genmode.ParameterError("house_style needs the tokenizer; pass tokenizer= to generate")
        if self.by_input and len(self.lists) != context.num_inputs:
            raise genmode.ParameterError(
                f"house_style_never has {len(self.lists)} lists for {context.num_inputs} inputs; give one list of terms, or "
                "one for each input"
            )
        device, ends = context.device, [token for token in context.eos_token_ids if token < context.vocab_size]
        tables = self._tables = tables_of(context.tokenizer, context.vocab_size, ends, self.terms, self.lists)
        self._vocab, self._limit, self._prompt = context.vocab_size, context.max_length, context.prompt_length
        self._sizes = torch.tensor([len(text) for text in tables.texts]).to(device)
        lines, after, begin, closed, self._found = (
            torch.from_numpy(x).to(device)
            for x in (tables.line, tables.after, tables.begin, tables.closed, tables.found)
        )
        self._open = torch.from_numpy(tables.open).long().to(device)
        self._ends = torch.tensor(ends, dtype=torch.long, device=device)
        completes = (self._found > 0) | (self._open[after] > 0)
        self._line, self._completes = lines, completes.t().contiguous()  # [vocab], [states, lines]
        copies = context.rows // context.num_inputs
        state = begin[(torch.arange(context.rows, device=device) // copies).clamp(max=len(self.lists) - 1)]
        history = context.history
        for column in range(max(0, self._prompt - 2 * self._span), self._prompt):
            line = lines[history.tokens[:, column].clamp(0, self._vocab - 1)]
            state = after[line, state].where(column >= history.starts, state)
        self._begin = closed[state].long()
        self._states = TokenStates(lines, after, self._begin, context)
        if context.backtracks and self.max_backtrack:
            preferred = [self.params.house_style_prefer.get(term, "") for term in self.terms]
            self._retries = Retries(context, self.params.house_style_retries)
            self._preferences = Preferences(context, preferred, tables.texts)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        if self._tables is None:
            return scores
        stuck: Tensor | None = None
        if self._retries is not None:
            scores = self._preferences.prefer(scores, history, self.params.house_style_bias)
            tokens, here = self._retries.banned(history)
            scores = forbid(scores, torch.zeros_like(scores).scatter_add_(1, tokens, here.to(scores.dtype)) > 0)
            stuck = self._retries.stuck(history.lengths)
            if host_sync.surely_none(stuck):
                return scores
        banned = self._completes[self._states.state(history.lengths)][:, self._line]  # [rows, vocab]
        return forbid(scores, banned if stuck is None else banned & stuck[:, None])

    def accept(self, tokens: Tensor) -> None:
        if self._tables is not None:
            self._states.accept(tokens)

    def rollback(self, counts: Tensor) -> None:
        if self._tables is not None:
            self._states.rollback(counts)

    def reorder(self, rows: Tensor) -> None:
        if self._tables is not None:
            self._states.reorder(rows)
        if self._retries is not None:
            self._retries.reorder(rows)
            self._preferences.reorder(rows)

    def backtrack(self, history: genmode.History) -> Tensor | None:
        if self._retries is None:
            return None
        lengths = history.lengths
        bytes_back = self._found_at(history, lengths) // len(self.terms)  # from the end of the last token
        last_first = history.tail(self._span).flip(1).clamp(0, self._vocab - 1)
        sizes = self._sizes[last_first]
        counts = (sizes.cumsum(1) - sizes < bytes_back[:, None]).sum(1)
        return counts.masked_fill(self._retries.stuck(lengths - 1), 0)

    def backtracked(self, history: genmode.History, counts: Tensor) -> None:
        if self._retries is not None:
            term = self._found_at(history, history.lengths + counts) % len(self.terms)
            self._retries.note(history, counts)
            self._preferences.note(history, counts, term)

    def on_finish(self, sequences: Tensor) -> None:
        if self._tables is None:
            return
        rows = torch.arange(len(sequences), device=self._begin.device) * len(self._begin) // len(sequences)
        state = self._begin[rows]
        found = torch.zeros_like(state, dtype=torch.bool)
        for tokens in sequences[:, self._prompt :].unbind(1):
            found |= self._found[self._states.line(tokens), state] > 0
            state = self._states.moved(tokens, state)
        found |= self._open[state] > 0
        if bool(found.any()):
            warnings.warn(
                f"house_style: results {found.nonzero()[:, 0].tolist()} have a term that should never appear: nothing else "
                "was left to choose, or a criterion ended them behind it", UserWarning, stacklevel=2,
            )  # fmt: skip

    def reset(self) -> None:
        self._tables = self._retries = None

    def _found_at(self, history: genmode.History, lengths: Tensor) -> Tensor:
        """What is found with each row's last token if it has so many: `[rows]`, long, 0 for nothing."""
        column = (lengths - 1).clamp(0, history.tokens.shape[1] - 1)
        tokens = history.tokens.gather(1, column[:, None])[:, 0].clamp(0, self._vocab - 1)
        before = self._states.state(lengths - 1)
        found = self._found[self._states.line(tokens), before]
        last = torch.isin(tokens, self._ends) | (lengths >= self._limit)
        return torch.maximum(found, self._open[self._states.moved(tokens, before)].where(last, 0))


def forbid(scores: Tensor, banned: Tensor) -> Tensor:
    """Mask the tokens that are `banned`, of the shape of `scores`, in place, in rows that this leaves a token."""
    left = (scores.isfinite() & ~banned).any(1, keepdim=True)
    return scores.masked_fill_(banned & left, -torch.inf)
