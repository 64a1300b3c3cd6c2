"""Phrases that must not occur in the text.

A phrase is banned in the decoded text, whatever its tokenization: wherever it would end, also in the midst
of a token, and also if it begins in the prompt. It is looked for as written, case and spaces included, and
inside longer words too (ban " cat" rather than "cat" to keep "concatenate"). There are two ways:

One ahead (`banned_phrases_retries` 0): every token in which a phrase would end gets -inf. The text may begin a
phrase and has to leave it at its last token.

Going back (1 or more): a row may spell the phrase. When it is complete, the row goes back to before the token
in which the phrase begins, and that token is forbidden there; of several phrases that end in one token, the
one that begins last counts. What lies in the prompt, or further back than `max_backtrack` (the
bytes of the longest phrase and a few), stays, and the first token behind it is forbidden. A row that has gone
back `banned_phrases_retries` times without becoming longer than before does not go back until it is: tokens in
which a phrase would end get -inf meanwhile, so every row ends, after at most retries + 1 attempts at each
length. A phrase may here also be a list of tokens, which is found as such. Under beams and other
strategies whose rows cannot go back (`Context.backtracks`), phrases are banned one ahead.

Either way the text never contains a phrase, unless every other token of the row is masked: its scores are then
all -inf, never NaN. Ties among the other tokens stay ties. Text decoded by going back is not distributed as
the model's given that no phrase occurs: what follows the place is drawn anew, what led there is not.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

import genmode
from genmode.text import TEXTLESS, PhraseTable, PhraseTracker, Retries, TokenStates, phrase_table, token_bytes

from ..constraints.sequence_bias import Sequence
from ..order import preceding
from ..row_ops import forbid, lower


class BannedPhrases(genmode.BacktrackingProcessor):
    """Ban phrases in the decoded text, whatever their tokenization.

    Stage constraint; reads tokens alone; writes in place; `[rows, vocab]` of any floating type. Tokens that
    end the sequence are never banned, whatever they are written as. Raises `ParameterError` without a
    tokenizer, and for tokens outside the vocabulary.
    """

    contract_version = 1
    name = "banned_phrases"
    stage = genmode.Stage.CONSTRAINT
    after = preceding("banned_phrases")

    class Params(genmode.Params):
        banned_phrases: tuple[Annotated[str, Field(min_length=1)] | Sequence, ...] = Field(
            (), description="texts that do not occur in the output, as written; with retries also lists of tokens"
        )
        banned_phrases_retries: int = Field(
            0,
            ge=0,
            le=1024,
            description="so often a row goes back to where a phrase began; 0 forbids what would complete it",
        )

        @model_validator(mode="after")
        def _texts(self) -> Any:
            tokens = [phrase for phrase in self.banned_phrases if not isinstance(phrase, str)]
            if tokens and not self.banned_phrases_retries:
                raise ValueError(
                    f"banned_phrases={tokens}: lists of tokens are banned one ahead by bad_words_ids; give them "
                    "there, or set banned_phrases_retries to have rows go back"
                )
            return self

    def __init__(self, params: Any = None, **values: Any) -> None:
        super().__init__(params, **values)
        self._ahead: Completing | None = None
        self._tracker: PhraseTracker | None = None
        self._spelled: Spelled | None = None
        self._listed: Listed | None = None
        self._retries: Retries | None = None

    @property
    def max_backtrack(self) -> int:
        """The most tokens that a phrase can be spelled in."""
        if not self.params.banned_phrases_retries:
            return 0
        sizes = [len(p.encode()) + TEXTLESS if isinstance(p, str) else len(p) for p in self.params.banned_phrases]
        return max(sizes, default=0)

    def begin(self, context: genmode.Context) -> None:
        texts = [phrase for phrase in self.params.banned_phrases if isinstance(phrase, str)]
        lists = [phrase for phrase in self.params.banned_phrases if not isinstance(phrase, str)]
        lists = [tokens for tokens in lists if not (len(tokens) == 1 and tokens[0] in context.eos_token_ids)]
        back = self.max_backtrack > 0 and context.backtracks
        if texts:
            if context.tokenizer is None:
                raise genmode.ParameterError("banned_phrases needs the tokenizer; pass tokenizer= to generate")
            table = phrase_table(texts, context.tokenizer)
            self._ahead = Completing(table, context)
            tracker = PhraseTracker(table, context.device)
            if back:
                self._spelled = Spelled(table, tracker.scan(context.history)[0], context, self.max_backtrack)
            else:
                self._tracker = tracker
        if lists:
            self._listed = Listed(lists, context)
        if back:
            self._retries = Retries(context, self.params.banned_phrases_retries)

    def process(self, scores: Tensor, history: genmode.History) -> Tensor:
        retries = self._retries
        stuck = None if retries is None else retries.stuck(history.lengths)
        if retries is not None:
            scores = forbid(scores, *retries.banned(history))
        if self._ahead is not None:
            state = self._tracker.update(history)[0] if self._tracker is not None else None
            if self._spelled is not None:
                state = self._spelled.states.state(history.lengths)
            if state is not None:
                scores = self._ahead.forbid(scores, state, stuck)
        if self._listed is not None:
            matches = self._listed.begun(history)
            matches = matches if stuck is None else matches & stuck[:, None]
            scores = forbid(scores, self._listed.lasts.expand(history.rows, -1), matches)
        return scores

    def accept(self, tokens: Tensor) -> None:
        if self._spelled is not None:
            self._spelled.states.accept(tokens)

    def backtrack(self, history: genmode.History) -> Tensor | None:
        if self._retries is None:
            return None
        found = [one.complete(history) for one in (self._spelled, self._listed) if one is not None]
        if not found:
            return None
        most = torch.iinfo(torch.long).max
        counts = torch.stack([count.masked_fill(count == 0, most) for count in found]).amin(0)
        return counts.masked_fill((counts == most) | self._retries.stuck(history.lengths - 1), 0)

    def backtracked(self, history: genmode.History, counts: Tensor) -> None:
        if self._retries is not None:
            self._retries.note(history, counts)

    def reorder(self, rows: Tensor) -> None:
        if self._tracker is not None:
            self._tracker.reorder(rows)
        if self._spelled is not None:
            self._spelled.states.reorder(rows)
        if self._retries is not None:
            self._retries.reorder(rows)

    def rollback(self, counts: Tensor) -> None:
        if self._tracker is not None:
            self._tracker.rollback()
        if self._spelled is not None:
            self._spelled.states.rollback(counts)

    def reset(self) -> None:
        self._ahead = self._tracker = self._spelled = self._listed = self._retries = None


class Completing:
    """The tokens in which a phrase would end, for each state of the automaton."""

    def __init__(self, table: PhraseTable, context: genmode.Context) -> None:
        banned = [np.setdiff1d(tokens, context.eos_token_ids) for tokens in table.completing()]
        banned = [tokens[tokens < context.vocab_size] for tokens in banned]
        padded = np.zeros((len(banned), max(map(len, banned))), dtype=np.int64)
        limits = np.full(padded.shape, np.inf, dtype=np.float32)
        for state, tokens in enumerate(banned):
            padded[state, : len(tokens)] = tokens
            limits[state, : len(tokens)] = -np.inf
        self._banned = torch.from_numpy(padded).to(context.device)  # [states, count]
        self._limits = torch.from_numpy(limits).to(context.device)  # -inf, and +inf where a state bans fewer

    def forbid(self, scores: Tensor, state: Tensor, rows: Tensor | None) -> Tensor:
        """Mask them, in the rows `[rows]`, bool, or in all."""
        limits = self._limits[state]
        if rows is not None:
            limits = limits.masked_fill(~rows[:, None], torch.inf)
        return lower(scores, self._banned[state], limits)


class Spelled:
    """Texts that rows spell, found behind each token of each row, so that rows can go back.

    Args:
        table: the phrases.
        begin: `[rows]`, long: the automaton's state behind the prompt.
        context: the call.
        span: no phrase takes more tokens.

    Attributes:
        states: the automaton's state behind each token.
    """

    def __init__(self, table: PhraseTable, begin: Tensor, context: genmode.Context, span: int) -> None:
        device, textless = context.device, len(table.after)
        sizes = np.array([len(text) for text in token_bytes(context.tokenizer)] + [0])
        lines = np.append(table.lines, textless)
        ends = [token for token in context.eos_token_ids if token < len(lines)]
        lines[ends], sizes[ends] = textless, 0
        after = np.vstack([table.after, np.arange(table.after.shape[1])])
        # 0: no phrase ends in the token; else 1 + the bytes before it that belong to the phrase
        reach = np.vstack([np.where(table.ended, table.before + 1, 0), np.zeros(table.after.shape[1], dtype=np.int64)])
        self._sizes, self._reach = torch.from_numpy(sizes).to(device), torch.from_numpy(reach).to(device)
        self._span = span
        self.states = TokenStates(
            torch.from_numpy(lines).to(device), torch.from_numpy(after).to(device), begin, context
        )

    def complete(self, history: genmode.History) -> Tensor:
        """How many tokens the phrase takes that ends in each row's last token, `[rows]`, long; 0 for none."""
        recent = history.tail(self._span)  # [rows, span]
        reach = self._reach[self.states.line(recent[:, -1]), self.states.state(history.lengths - 1)]
        sizes = self._sizes[recent[:, :-1].clamp(0, len(self._sizes) - 1)].flip(1)  # nearest first
        nearer = sizes.cumsum(1) - sizes
        return ((nearer < reach[:, None] - 1).sum(1) + 1).masked_fill(reach == 0, 0)


class Listed:
    """Phrases that are lists of tokens.

    Args:
        lists: the tokens of each, none empty.
        context: the call.
    """

    def __init__(self, lists: list[tuple[int, ...]], context: genmode.Context) -> None:
        outside = sorted({token for tokens in lists for token in tokens if token >= context.vocab_size})
        if outside:
            raise genmode.ParameterError(
                f"banned_phrases: tokens {outside} are outside the vocabulary of {context.vocab_size}; remove them"
            )
        span = max(map(len, lists))
        aligned = torch.full((len(lists), span), -1)
        for line, tokens in enumerate(lists):
            aligned[line, span - len(tokens) :] = torch.tensor(tokens)
        self._tokens = aligned.to(context.device)  # [lists, span]; -1 before a list's first token
        self._sizes = (self._tokens >= 0).sum(1)
        self.lasts = self._tokens[:, -1]

    def begun(self, history: genmode.History) -> Tensor:
        """Which lists each row ends in but for their last token: `[rows, lists]`, bool."""
        return self._match(history, self._tokens[:, :-1])

    def complete(self, history: genmode.History) -> Tensor:
        """How many tokens the shortest list has that each row ends in, `[rows]`, long; 0 for none."""
        matches, most = self._match(history, self._tokens), self._tokens.shape[1] + 1
        counts = torch.where(matches, self._sizes, most).amin(1)
        return counts.masked_fill(counts == most, 0)

    def _match(self, history: genmode.History, tokens: Tensor) -> Tensor:
        span = tokens.shape[1]
        column = torch.arange(-span, 0, device=tokens.device) + history.lengths[:, None]
        recent = history.tail(span).masked_fill(column < history.starts[:, None], -2)
        return ((recent[:, None] == tokens) | (tokens < 0)).all(2)
