"""What a constraint accepts, as nodes and edges.

Node 0 is the start; an edge (node, token, node) says what a token does. Where a token has no edge it does
nothing at a node that rests, and otherwise loses progress: the automaton falls back to the node's `back`.
A constraint is *underway* at a node that does not rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

ANY = -1
"""The token of an edge that every token takes, and that is never proposed."""


@dataclass
class Automaton:
    """Nodes and edges. Edges lead from lower to higher numbers.

    Attributes:
        back: by node: where a wrong token leads; the node itself where it rests.
        remaining: by node: tokens still needed as the search counts them, 0 where the constraint is met.
        edges: (node, token, node); a node has at most one edge for a token.
    """

    back: list[int] = field(default_factory=lambda: [0])
    remaining: list[int] = field(default_factory=lambda: [0])
    edges: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def add(self, start: int, token: int, back: int | None, remaining: int) -> int:
        """A new node behind an edge from `start`; `back` None makes it rest. Returns its number."""
        node = len(self.back)
        self.back.append(node if back is None else back)
        self.remaining.append(remaining)
        self.edges.append((start, token, node))
        return node

    def least(self) -> list[int]:
        """By node: the fewest tokens that meet the constraint from there."""
        least = [0 if left == 0 else len(self.back) for left in self.remaining]
        for start, _, end in reversed(self.edges):
            least[start] = min(least[start], least[end] + 1)
        return least

    def chain(self, start: int, tokens: Sequence[int], *, back: int, left: int = 0) -> int:
        """Add the nodes of a word behind `start`, of which the last rests; returns that one's number.

        Args:
            back: where a wrong token within the word leads.
            left: tokens that remain behind the word.
        """
        node = start
        for place, token in enumerate(tokens):
            behind = len(tokens) - place - 1
            node = self.add(node, token, back if behind else None, left + behind)
        return node
