"""How far each row of a search has met a list of constraints, all rows at once.

A row is at one node of each constraint's automaton. At most one constraint is underway; then only it can
advance, and a wrong token makes it fall back and puts it behind the others. Otherwise the first constraint in
the row's order that has an edge for the token advances. This is the bookkeeping of transformers 4.49, kept
step by step instead of being done again from the start.

`Parts` follows the constraints one by one. There are at most 2^constraints times their lengths combinations,
so where they are few, `Whole` numbers all of them beforehand, and a step is a look into a table.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

import genmode

from .constraint_automaton import ANY
from .constraints import Constraint

MOST_ENTRIES = 20_000
"""A table with more entries than this takes longer to fill than it saves."""

_OTHER = ANY - 1
_LAST = 2**40


class Progress(Protocol):
    """How far rows are; `states` is whatever `select`, `after` and `read` return.

    Attributes:
        words: `[words]`, long: all tokens that advance some constraint, ascending.
        gaps: whether some constraint has a gap that any token fills.
    """

    words: Tensor
    gaps: bool

    def select(self, states: Any, rows: Tensor) -> Any:
        """Row i is where row `rows[i]` was."""
        ...

    def after(self, states: Any, tokens: Tensor) -> Any:
        """Where rows are that go on with `tokens` `[rows]`."""
        ...

    def missing(self, states: Any) -> Tensor:
        """The fewest tokens that meet all constraints from here: `[rows]`, long; 0 where they are met."""
        ...

    def advancing(self, states: Any) -> Tensor:
        """`banks` of the words that advance a constraint of the row, -1 of others and in the last column.

        `[rows, words + 1]`, float32; the caller may write into it.
        """
        ...

    def gap(self, states: Any) -> Tensor:
        """Which rows are at a gap: `[rows]`, bool."""
        ...

    def banks(self, states: Any) -> Tensor:
        """How much is met after each of `words`, and after any other token: `[rows, words + 1]`, float32."""
        ...

    def kinds(self, tokens: Tensor) -> Tensor:
        """The columns of tokens in `advancing` and `banks`; long."""
        ...


@dataclass(frozen=True)
class States:
    """Where rows are, constraint by constraint.

    Attributes:
        nodes: `[rows, constraints]`, long: numbered over all automata.
        underway: `[rows]`, long: the constraint that is underway, -1 for none.
        order: `[rows, constraints]`, long: a permutation; constraints with lower numbers come first.
    """

    nodes: Tensor
    underway: Tensor
    order: Tensor


class Parts:
    """See `Progress`. Edges and nodes of all automata as tensors, `[edges]` and `[nodes]`.

    Equal to another of the same automata.
    """

    def __init__(self, constraints: Sequence[Constraint], device: torch.device) -> None:
        automata = [one.automaton() for one in constraints]
        self.key = tuple((tuple(one.back), tuple(one.remaining), tuple(one.edges)) for one in automata)
        longest = max(one.remaining[0] for one in automata)
        starts: list[int] = []
        back: list[int] = []
        gain: list[int] = []
        least: list[int] = []
        edges: list[tuple[int, int, int, int]] = []
        for number, one in enumerate(automata):
            first = len(back)
            starts.append(first)
            back += [first + node for node in one.back]
            gain += [max(0, longest - left) for left in one.remaining]
            gain[first] = 0
            least += one.least()
            edges += [(first + a, token, first + b, number) for a, token, b in one.edges]

        def column(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        self.starts, self.back, self.least = column(starts), column(back), column(least)
        self.gain = column(gain).float()
        self.source, self.tokens, self.target, self.owner = (column(one) for one in zip(*edges, strict=True))
        self.mid = self.back != torch.arange(len(back), device=device)
        self.words = self.tokens[self.tokens != ANY].unique()
        self.gaps = bool((self.tokens == ANY).any())
        self.each_token = torch.cat([self.words, self.words.new_tensor([_OTHER])])
        # A token on edges of two constraints makes their order matter.
        self.contested = len({(token, number) for _, token, _, number in edges}) > len({t for _, t, _, _ in edges})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parts) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def begin(self, rows: int) -> States:
        """Rows at the start."""
        device = self.starts.device
        return States(
            self.starts.expand(rows, -1),
            torch.full((rows,), -1, device=device),
            torch.arange(len(self.starts), device=device).expand(rows, -1),
        )

    def read(self, states: States, ids: Tensor, begins: Tensor) -> States:
        """Where rows are after the tokens `ids` `[rows, length]` from column `begins[r]` on."""
        columns = torch.arange(ids.shape[1], device=ids.device)
        ids = ids.masked_fill(columns < begins[:, None], _OTHER)
        known = torch.isin(ids, self.words).any(0).nonzero()
        for column in range(int(known[0]) if len(known) else ids.shape[1], ids.shape[1]):
            states = self.after(states, ids[:, column])
        return states

    def select(self, states: States, rows: Tensor) -> States:
        return States(states.nodes[rows], states.underway[rows], states.order[rows])

    def _open(self, states: States) -> Tensor:
        """The edges that rows can take next: `[rows, edges]`, bool."""
        underway = states.underway[:, None]
        return (states.nodes[:, self.owner] == self.source) & ((underway < 0) | (underway == self.owner))

    def after(self, states: States, tokens: Tensor) -> States:
        exact = self.tokens == tokens[:, None]
        fits = self._open(states) & (exact | (self.tokens == ANY))  # [rows, edges]
        # An edge for this very token comes before one for any, then the constraints' order decides.
        rank = (states.order[:, self.owner] + ~exact * _LAST).masked_fill(~fits, 2 * _LAST)
        edge, found = rank.argmin(1), fits.any(1)
        lost = ~found & (states.underway >= 0)
        which = torch.where(found, self.owner[edge], states.underway.clamp(min=0))[:, None]  # [rows, 1]
        here = states.nodes.gather(1, which)[:, 0]
        node = torch.where(found, self.target[edge], torch.where(lost, self.back[here], here))
        underway = torch.where(found & self.mid[node], which[:, 0], -1)
        order = states.order
        if self.contested:
            later = order > order.gather(1, which)
            last = (order - later.long()).scatter(1, which, order.shape[1] - 1)
            order = last.where(lost[:, None], order)
        return States(states.nodes.scatter(1, which, node[:, None]), underway, order)

    def missing(self, states: States) -> Tensor:
        return self.least[states.nodes].sum(1)

    def advancing(self, states: States) -> Tensor:
        edges = self._open(states).long()
        found = edges.new_zeros(edges.shape[0], len(self.words) + 1)
        found = found.scatter_add(1, self.kinds(self.tokens).expand_as(edges), edges) > 0
        found[:, -1] = False
        return self.banks(states).where(found, -1.0)

    def gap(self, states: States) -> Tensor:
        return (self._open(states) & (self.tokens == ANY)).any(1)

    def banks(self, states: States) -> Tensor:
        rows, tokens = states.underway.shape[0], self.each_token
        every = torch.arange(rows, device=tokens.device).repeat_interleave(len(tokens))
        after = self.after(self.select(states, every), tokens.repeat(rows))
        return self.gain[after.nodes].sum(1).view(rows, -1)

    def kinds(self, tokens: Tensor) -> Tensor:
        place = torch.searchsorted(self.words, tokens.contiguous()).clamp(max=len(self.words) - 1)
        return place.where(self.words[place] == tokens, len(self.words))


class Whole:
    """See `Progress`. States are numbers `[rows]`, long.

    Args:
        parts: what is numbered.
        numbered: all states there are.
        following: `[states, words + 1]`, long: the state after each word, and after any other token.
        vocab: length of a row of scores.
        device: where the search runs.
    """

    def __init__(self, parts: Parts, numbered: States, following: Tensor, vocab: int, device: torch.device) -> None:
        self.words, self.following, self.gaps = parts.words.to(device), following.to(device), parts.gaps
        self._gap = parts.gap(numbered).to(device)
        self._missing, self._banks = parts.missing(numbered).to(device), parts.banks(numbered).to(device)
        self._advancing = parts.advancing(numbered).to(device)
        self._kinds = torch.full((vocab,), len(self.words), device=device)
        self._kinds[self.words] = torch.arange(len(self.words), device=device)

    def select(self, states: Tensor, rows: Tensor) -> Tensor:
        return states[rows]

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        return self.following[states, self._kinds[tokens]]

    def missing(self, states: Tensor) -> Tensor:
        return self._missing[states]

    def advancing(self, states: Tensor) -> Tensor:
        return self._advancing[states]

    def gap(self, states: Tensor) -> Tensor:
        return self._gap[states]

    def banks(self, states: Tensor) -> Tensor:
        return self._banks[states]

    def kinds(self, tokens: Tensor) -> Tensor:
        return self._kinds[tokens]


def number(parts: Parts, first: States, vocab: int, device: torch.device) -> tuple[Whole, Tensor] | None:
    """All states that can follow `first` in one table, and the numbers of `first`; None if there are too many.

    Args:
        parts, first: on the CPU.
    """
    begun = _packed(first)
    found = _numbered(parts, tuple(dict.fromkeys(begun)), vocab, device)
    if found is None:
        return None
    whole, numbers = found
    return whole, torch.tensor([numbers[state] for state in begun], device=device)


@functools.lru_cache(maxsize=8)
def _numbered(
    parts: Parts, begun: tuple[tuple[int, ...], ...], vocab: int, device: torch.device
) -> tuple[Whole, dict[tuple[int, ...], int]] | None:
    """The table, and the number of each state in it; kept for later calls with these constraints."""
    tokens, width = parts.each_token, len(parts.each_token)
    numbers = {state: number for number, state in enumerate(begun)}
    following: list[list[int]] = []
    while len(following) < len(numbers):
        if len(numbers) * width > MOST_ENTRIES:
            return None
        fresh = _unpacked(list(numbers)[len(following) :], len(parts.starts))
        every = torch.arange(len(fresh.underway)).repeat_interleave(width)
        ends = parts.after(parts.select(fresh, every), tokens.repeat(len(fresh.underway)))
        found = [numbers.setdefault(state, len(numbers)) for state in _packed(ends)]
        following += [found[i : i + width] for i in range(0, len(found), width)]
    whole = Whole(parts, _unpacked(list(numbers), len(parts.starts)), torch.tensor(following), vocab, device)
    return whole, numbers


def _packed(states: States) -> list[tuple[int, ...]]:
    """One tuple for each row; `_unpacked` undoes it."""
    return [tuple(row) for row in torch.cat([states.nodes, states.underway[:, None], states.order], dim=1).tolist()]


def _unpacked(keys: Sequence[tuple[int, ...]], constraints: int) -> States:
    nodes, underway, order = torch.tensor(keys).split([constraints, 1, constraints], dim=1)
    return States(nodes, underway[:, 0], order)


def begin(session: genmode.Session, constraints: Sequence[Constraint], count_prompt: bool) -> tuple[Progress, Any]:
    """The constraints of a call, and where its rows are.

    Args:
        count_prompt: whether what the prompt contains counts.

    Raises:
        ParameterError: a token is outside the vocabulary, or there is no room for all constraints.
    """
    parts = Parts(constraints, torch.device("cpu"))
    beyond = parts.words[parts.words >= session.vocab_size].tolist()
    if beyond:
        raise genmode.ParameterError(
            f"force_words_ids or constraints ask for token {beyond[0]}; the model has tokens 0 to "
            f"{session.vocab_size - 1}"
        )
    states = parts.begin(session.rows)
    if count_prompt:
        states = parts.read(states, session.history.tokens.cpu(), session.history.starts.cpu())
    room, needed = session.max_length - session.prompt_length, int(parts.missing(states).max())
    if needed > room:
        raise genmode.ParameterError(
            f"force_words_ids and constraints need {needed} tokens, and max_length or max_new_tokens leaves "
            f"{room}; give more, or constrain less"
        )
    whole = number(parts, states, session.vocab_size, session.device)
    if whole is not None:
        return whole
    placed = Parts(constraints, session.device)
    moved = (one.to(session.device) for one in (states.nodes, states.underway, states.order))
    return placed, States(*moved)
