"""Where rows think, by markers of ids or of text.

Ids are compared with `[rows, length]`, once for each of their tokens, so nothing is kept from step to step. Text is
read by an automaton over bytes: its state says which of the two markers the text ends in a part of, and whether it
thinks; for each token and state the next one is tabled, so that markers may begin and end in the midst of tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import genmode
from genmode.text import byte_automaton, read_tokens, simplified

from ..row_ops import columns

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]


class Thinking(NamedTuple):
    """What is known of each row.

    Attributes:
        thinks: `[rows]`, bool.
        since: `[rows]`, long: tokens behind the one in which thinking began; undefined where the row does not think.
        token: `[rows]`, long: the token that goes on spelling the end; undefined where the row does not think.
    """

    thinks: Tensor
    since: Tensor
    token: Tensor


class IdReader:
    """Markers of ids.

    Args:
        start, end: at least one token each.
        device: of the tokens.
    """

    def __init__(self, start: list[int], end: list[int], device: torch.device) -> None:
        self._start, self._end = start, end
        self._forced = torch.tensor(end, device=device)

    def read(self, history: genmode.History) -> Thinking:
        """What is known of the rows of this history."""
        tokens, inside = history.tokens, history.inside
        begun = last_after(tokens, inside, self._start)  # [rows, 1]
        since = history.lengths[:, None] - begun
        token = self._forced[progress(history, since, self._forced)]
        return Thinking((begun > last_after(tokens, inside, self._end))[:, 0], since[:, 0], token[:, 0])


def progress(history: genmode.History, since: Tensor, end: Tensor) -> Tensor:
    """`[rows, 1]`, long: how much of `end` `[n]` each row ends in already, within its last `since` `[rows, 1]` tokens."""
    found = torch.zeros_like(since)
    for count in range(1, len(end)):
        there = (history.tail(count) == end[:count]).all(1, keepdim=True) & (since >= count)
        found = torch.where(there, count, found)
    return found


def last_after(tokens: Tensor, inside: Tensor, marker: list[int]) -> Tensor:
    """`[rows, 1]`, long: the column behind the last occurrence of the marker in each row; 0 if there is none.

    Args:
        tokens, inside: those of the history, `[rows, width]`.
        marker: at least one token.
    """
    count = tokens.shape[1] - len(marker) + 1
    if count <= 0:
        return tokens.new_zeros(len(tokens), 1)
    found = inside[:, :count] & inside[:, len(marker) - 1 :]
    for offset, token in enumerate(marker):
        found &= tokens[:, offset : offset + count] == token
    return torch.where(found, columns(found) + len(marker), 0).amax(1, keepdim=True)


class TextReader:
    """Markers of text.

    Args:
        start, end: bytes, at least one each.
        texts: the bytes of each token.
        context: the call, whose prompts are read.

    Raises:
        ParameterError: no tokens spell them.
    """

    def __init__(self, start: bytes, end: bytes, texts: Sequence[bytes], context: genmode.Context) -> None:
        check_spelled(start, texts, "think_start")
        check_spelled(end, texts, "think_end")
        spelled = spelling(end, texts, context.tokenizer)
        matched, _ = byte_automaton([start, end])
        states = len(matched)
        # State s thinks if s >= states. Behind a marker the text has begun it, or ended it: of both at once, ended.
        begins, stops = marker_states(matched, start), marker_states(matched, end)
        after = np.concatenate([matched, matched + states])
        after = np.where(np.isin(after % states, list(begins - stops)), after % states + states, after)
        after = np.where(np.isin(after % states, list(stops)), after % states, after)
        began = np.zeros(len(after), dtype=np.int64)
        began[[state + states for state in begins - stops]] = len(start)
        known: dict[bytes, int] = {b"": 0}  # tokens without text change nothing
        lines = [known.setdefault(text, len(known)) for text in simplified([start, end], texts)]
        table, anew, _ = read_tokens(after, began, list(known))
        ahead = [spelled[longest_part(matched, state, end)] for state in range(states)]
        device = context.device
        self._lines = torch.tensor([*lines, 0], device=device)
        self._after, self._anew = torch.from_numpy(table).to(device), torch.from_numpy(anew).to(device)
        self._token = torch.tensor(ahead * 2, device=device)
        self._states, self._prompt = states, context.prompt_length
        room = max(2, context.max_length - self._prompt + 2)
        self._record = torch.zeros(2, context.rows, room, dtype=torch.long, device=device)
        """State, and tokens since thinking began last, behind each token that a row has decoded."""
        self._at = context.history.lengths - self._prompt
        self._record.scatter_(2, self._at[None, :, None].expand(2, -1, 1), self._begun(context.history)[:, :, None])

    def _begun(self, history: genmode.History) -> Tensor:
        """State and tokens since of the rows as they are, `[2, rows]`, long."""
        lines, after, anew = self._lines.tolist(), self._after.tolist(), self._anew.tolist()
        found: list[tuple[int, int]] = []
        for row, inside in zip(history.tokens.tolist(), history.inside.tolist(), strict=True):
            state = since = 0
            for token in itertools.compress(row, inside):
                line = lines[min(token, len(lines) - 1)]
                since = 0 if anew[line][state] else since + 1
                state = after[line][state]
            found.append((state, since))
        return torch.tensor(found, device=self._at.device).T

    def read(self, history: genmode.History) -> Thinking:
        """What is known of the rows, at the tokens that were accepted."""
        at = self._at.clamp(max=self._record.shape[2] - 1)[None, :, None]  # of a finished row it may lie beyond
        state, since = self._record.gather(2, at.expand(2, -1, 1))[:, :, 0]
        return Thinking(state >= self._states, since, self._token[state])

    def accept(self, tokens: Tensor) -> None:
        """Each row goes on with `tokens` `[rows]`, long."""
        at = self._at.clamp(max=self._record.shape[2] - 2)[None, :, None].expand(2, -1, 1)
        state, since = self._record.gather(2, at)[:, :, 0]
        line = self._lines[tokens.clamp(0, len(self._lines) - 1)]
        since = torch.where(self._anew[line, state], 0, since + 1)
        self._record.scatter_(2, at + 1, torch.stack([self._after[line, state], since])[:, :, None])
        self._at = self._at + 1

    def rollback(self, counts: Tensor) -> None:
        """Row i takes back its last `counts[i]` tokens."""
        self._at = self._at - counts

    def reorder(self, rows: Tensor) -> None:
        """Row i continues what row `rows[i]` was."""
        self._record, self._at = self._record[:, rows], self._at[rows]


def marker_states(automaton: Ints, marker: bytes) -> set[int]:
    """The states of a text that ends in the marker: which one byte less leads to, wherever the text began."""
    reached = set(range(len(automaton)))
    for byte in marker:
        reached = {int(automaton[state, byte]) for state in reached}
    return reached


def longest_part(automaton: Ints, state: int, marker: bytes) -> int:
    """How many bytes of the marker, not all, the text of a state ends in."""
    return max((count for count in range(len(marker)) if state in marker_states(automaton, marker[:count])), default=0)


def spelling(end: bytes, texts: Sequence[bytes], tokenizer: Any) -> list[int]:
    """For each number of bytes of the end that are there already, the token that goes on with it.

    It is the first of the tokenizer's own spelling of what is left, or else the longest token that this begins with;
    where there is neither, so that no text can have come as far by tokens, that of the whole end.
    """
    longest: dict[bytes, int] = {}
    for token, text in enumerate(texts):
        if text and text in end:
            longest.setdefault(text, token)
    found: list[int] = []
    for there in range(len(end)):
        left = end[there:]
        own = own_spelling(left, texts, tokenizer)
        part = next((left[:count] for count in range(len(left), 0, -1) if left[:count] in longest), None)
        found.append(own if own is not None else longest[part] if part is not None else found[0])
    return found


def check_spelled(marker: bytes, texts: Sequence[bytes], key: str) -> None:
    """Raises `ParameterError` if no tokens spell the marker."""
    parts = {text for text in texts if text and text in marker}
    reached = {0}
    for at in range(len(marker)):
        if at in reached:
            reached |= {at + len(part) for part in parts if marker.startswith(part, at)}
    if len(marker) not in reached:
        raise genmode.ParameterError(
            f"{key}: the tokenizer has no tokens for {marker.decode(errors='replace')!r}; pass other text, or ids"
        )


def own_spelling(text: bytes, texts: Sequence[bytes], tokenizer: Any) -> int | None:
    """The first token of the tokenizer's encoding, if its tokens spell just this text."""
    try:
        ids: list[int] = tokenizer.encode(text.decode(), add_special_tokens=False)
    except UnicodeDecodeError:  # in the midst of a character
        return None
    spells = bool(ids) and all(i < len(texts) for i in ids) and b"".join(texts[i] for i in ids) == text
    return ids[0] if spells else None
