"""Constraints on the text that constrained beam search must meet.

`Constraint`, `PhrasalConstraint` and `DisjunctiveConstraint` are those that transformers 4 had, with the same
methods, so that subclasses written for it keep working; `OrderedConstraint` and `TemplateConstraint` are new.
A search does not call these methods token by token: it asks once for a constraint's `automaton()`, see
`genmode_strategies.beams.constraint_automaton`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Union

from genmode import ParameterError

from .constraint_automaton import ANY, Automaton

MOST_NODES = 20_000
"""A constraint of a user's own with more states than this cannot be explored."""


class UnmetConstraintWarning(UserWarning):
    """A result does not meet its constraints."""


class Constraint(ABC):
    """A constraint, and how far it is met. Subclasses define the six abstract methods.

    Attributes:
        seqlen: tokens that meeting the constraint takes at most.
    """

    seqlen: int

    @abstractmethod
    def advance(self) -> int | list[int] | None:
        """The token, or tokens, that bring the constraint one step further; None if it is met."""

    @abstractmethod
    def does_advance(self, token_id: int) -> bool:
        """Whether the token brings the constraint one step further."""

    @abstractmethod
    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        """Take in a token; returns whether it made progress, met the constraint, or lost all progress."""

    @abstractmethod
    def reset(self) -> None:
        """Lose all progress."""

    @abstractmethod
    def remaining(self) -> int:
        """Tokens that are still needed."""

    @abstractmethod
    def copy(self, stateful: bool = False) -> Constraint:
        """A new constraint of the same kind, with the same progress if `stateful`."""

    def automaton(self) -> Automaton:
        """The constraint's states, found by advancing copies of it.

        Raises:
            ParameterError: the methods contradict each other, or there are too many states.
        """
        first = self.copy()
        found = Automaton(remaining=[max(1, first.remaining())])
        waiting: list[tuple[int, Constraint]] = [(0, first)]
        while waiting:
            node, state = waiting.pop(0)
            for token in _tokens(state.advance()):
                following = state.copy(stateful=True)
                stepped, completed, _ = following.update(token)
                if not stepped:
                    raise ParameterError(
                        f"{self!r}: advance() gives token {token}, but update({token}) makes no progress"
                    )
                if len(found.back) >= MOST_NODES:
                    raise ParameterError(
                        f"{self!r} has more than {MOST_NODES} states; define automaton(), or constrain less"
                    )
                keeps = not completed and not _loses(following)
                left = 0 if completed else max(1, following.remaining())
                added = found.add(node, token, None if keeps or completed else 0, left)
                if not completed:
                    waiting.append((added, following))
        if 0 not in found.remaining:
            raise ParameterError(f"{self!r} can never be met: advance() ends before update() says that it is")
        return found


def _tokens(advance: int | list[int] | None) -> list[int]:
    if advance is None:
        return []
    return [advance] if isinstance(advance, int) else list(dict.fromkeys(advance))


def _loses(state: Constraint) -> bool:
    """Whether a token that does not advance it makes the constraint lose its progress."""
    wrong = max(_tokens(state.advance()), default=0) + 1
    return state.copy(stateful=True).update(wrong)[2]


class _Compiled(Constraint):
    """A constraint that is written as its automaton."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._following: list[dict[int, int]] = [{} for _ in automaton.back]
        for start, token, end in automaton.edges:
            self._following[start][token] = end
        self._node = 0
        self.seqlen = automaton.remaining[0]

    @property
    def completed(self) -> bool:
        """Whether the constraint is met."""
        return self.remaining() == 0

    def automaton(self) -> Automaton:
        return self._automaton

    def advance(self) -> int | list[int] | None:
        return [token for token in self._following[self._node] if token != ANY] or None

    def does_advance(self, token_id: int) -> bool:
        edges = self._following[self._node]
        return token_id in edges or ANY in edges

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        edges = self._following[self._node]
        stepped = self.does_advance(token_id)
        before = self._node
        self._node = edges.get(token_id, edges.get(ANY, self._automaton.back[before]))
        return stepped, self.completed, not stepped and self._node != before

    def reset(self) -> None:
        self._node = 0

    def remaining(self) -> int:
        return self._automaton.remaining[self._node]

    def copy(self, stateful: bool = False) -> Constraint:
        new = copy.copy(self)
        new._node = self._node if stateful else 0
        return new


class PhrasalConstraint(_Compiled):
    """The text contains these tokens, one right after the other.

    Args:
        token_ids: the tokens.

    Raises:
        ParameterError: `token_ids` is no list of token ids, or is empty.
    """

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = _word(token_ids, "token_ids")
        found = Automaton(remaining=[len(token_ids)])
        found.chain(0, self.token_ids, back=0)
        super().__init__(found)

    def __repr__(self) -> str:
        return f"PhrasalConstraint({self.token_ids})"

    def advance(self) -> int | None:
        tokens = _tokens(super().advance())
        return tokens[0] if tokens else None


class DisjunctiveConstraint(_Compiled):
    """The text contains at least one of these words.

    Args:
        nested_token_ids: the words, each a list of token ids.

    Raises:
        ParameterError: there are no words, one is no list of token ids, or one is the beginning of another.
    """

    def __init__(self, nested_token_ids: list[list[int]]) -> None:
        self.token_ids = _words(nested_token_ids, "nested_token_ids")
        height = max(len(word) for word in self.token_ids)
        found = Automaton(remaining=[height])
        ends: set[int] = set()
        for word in self.token_ids:
            node = 0
            for place, token in enumerate(word):
                known = next((end for start, t, end in found.edges if start == node and t == token), None)
                if known is None:
                    known = found.add(node, token, 0, height - place - 1)
                node = known
            ends.add(node)
            found.back[node], found.remaining[node] = node, 0
        if len(ends) < len(self.token_ids) or any(start in ends for start, _, _ in found.edges):
            raise ParameterError(
                f"nested_token_ids={self.token_ids}: one word is the beginning of another, so that the "
                "longer one could never be asked for; leave one of them out"
            )
        super().__init__(found)

    def __repr__(self) -> str:
        return f"DisjunctiveConstraint({self.token_ids})"


class OrderedConstraint(_Compiled):
    """The text contains these words in this order, with anything between them.

    Args:
        words: the words, each a list of token ids.

    Raises:
        ParameterError: there are no words, or one is no list of token ids.
    """

    def __init__(self, words: list[list[int]]) -> None:
        self.words = _words(words, "words")
        left = sum(len(word) for word in self.words)
        found = Automaton(remaining=[left])
        node = 0
        for word in self.words:
            left -= len(word)
            node = found.chain(node, word, back=node, left=left)
        super().__init__(found)

    def __repr__(self) -> str:
        return f"OrderedConstraint({self.words})"


class TemplateConstraint(_Compiled):
    """The text contains these words with exactly one token of any kind for each gap between them.

    Args:
        template: words, each a token id or a list of them, and None for each gap.

    Raises:
        ParameterError: an item is neither, or the template does not begin and end with a word.
    """

    def __init__(self, template: Sequence[Union[int, list[int], None]]) -> None:  # noqa: UP007 Sequence has no |
        self.template = list(template) if isinstance(template, (list, tuple)) else []
        tokens: list[int] = []
        for item in self.template:
            if item is None:
                tokens.append(ANY)
            else:
                tokens += _word([item] if isinstance(item, int) else item, "template")
        if not tokens or ANY in (tokens[0], tokens[-1]):
            raise ParameterError(f"template={template!r}: give words and gaps (None), a word first and last")
        found = Automaton(remaining=[len(tokens)])
        found.chain(0, tokens, back=0)
        super().__init__(found)

    def __repr__(self) -> str:
        return f"TemplateConstraint({self.template})"


def _word(value: Any, what: str) -> list[int]:
    fine = isinstance(value, list) and bool(value)  # pyright: ignore[reportUnknownArgumentType]
    if not fine or not all(isinstance(t, int) and not isinstance(t, bool) and t >= 0 for t in value):
        raise ParameterError(f"{what} has {value!r} where a list of one or more token ids (0, 1, …) belongs")
    return list(value)


def _words(value: Any, what: str) -> list[list[int]]:
    if not isinstance(value, list) or not value:
        raise ParameterError(f"{what}={value!r}: give a list of one or more words, each a list of token ids")
    return [_word(word, what) for word in value]


def constraints_of(force_words_ids: Any, constraints: Any) -> Iterator[Constraint]:
    """The constraints that the two flags of a call ask for.

    Raises:
        ParameterError: a flag holds something else.
    """
    if constraints is not None and not isinstance(constraints, (list, tuple)):
        raise ParameterError(f"constraints={constraints!r}: give a list of Constraint objects")
    for one in constraints or ():
        if not isinstance(one, Constraint):
            raise ParameterError(
                f"constraints has {one!r} where a Constraint belongs, e.g. genmode_strategies.beams.constraints."
                "PhrasalConstraint([5, 7])"
            )
        yield one
    if force_words_ids is None:
        return
    if not isinstance(force_words_ids, list) or not force_words_ids:
        raise ParameterError(f"force_words_ids={force_words_ids!r}: give a list of words or of lists of words")
    for word in force_words_ids:
        if isinstance(word, list) and word and isinstance(word[0], list):
            yield DisjunctiveConstraint(word)
        else:
            yield PhrasalConstraint(_word(word, "force_words_ids"))
