"""What a session asks of the code that runs the model; two engines answer.

The portable engine follows transformers step by step and runs whatever transformers can generate with. The
static engine keeps rows of their own lengths in one preallocated cache and, on CUDA, replays captured forwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class TreeForm(NamedTuple):
    """How the nodes of drafted trees, n in each row, hang together.

    Attributes:
        parents: `[rows, n]`, long: the parent of each node, which comes before it; -1 for the row's last token.
        ancestors: `[rows, n, n]`, bool: which nodes lie on the way to each, itself included.
        depths: `[rows, n]`, long, from 1.
        deepest: no depth is larger, as far as the host knows.
        counts: `[rows]`, long: nodes that are meant, the others fill up; None if all are.
    """

    parents: Tensor
    ancestors: Tensor
    depths: Tensor
    deepest: int
    counts: Tensor | None

    def seen(self) -> Tensor:
        """Which of the row's last token and the nodes each of them sees: `[rows, n + 1, n + 1]`, bool."""
        seen = torch.nn.functional.pad(self.ancestors, (1, 0, 1, 0), value=True)
        seen[:, 0, 1:] = False
        return seen

    def ahead(self) -> Tensor:
        """How far the row's last token and the nodes lie ahead of that token: `[rows, n + 1]`, long."""
        return torch.nn.functional.pad(self.depths, (1, 0))

    def select(self, rows: Tensor) -> TreeForm:
        """Row i becomes what row `rows[i]` was."""
        counts = None if self.counts is None else self.counts.index_select(0, rows)
        parents, ancestors, depths = (one.index_select(0, rows) for one in self[:3])
        return TreeForm(parents, ancestors, depths, self.deepest, counts)


class Engine(Protocol):
    """Runs one model on the rows of one call.

    Attributes:
        name: "portable", "static" or "graph", as `explain` shows it.
        outputs: what the model returned last, for hidden states and attentions.
        length: tokens that every row has in the cache; None while rows differ.
        replays: whether `replay` records what it runs.
    """

    name: str
    outputs: Any
    length: int | None
    replays: bool

    def prefill(self) -> Tensor:
        """Run the prompt; returns the logits of the next token, `[rows, vocab]`, in the model's dtype."""
        ...

    def forward(self, tokens: Tensor) -> Tensor:
        """Feed `tokens` `[rows, count]` behind each row; returns logits `[rows, count, vocab]`.

        The result may be overwritten by the next forward.
        """
        ...

    def tree(self, tokens: Tensor, form: TreeForm) -> Tensor:
        """Feed each row's last token and a tree of n nodes behind it: `tokens` `[rows, n + 1]`, in the order of the nodes.

        Returns:
            Logits behind each, with its own ancestors as its past: `[rows, n + 1, vocab]`.
        """
        ...

    def keep(self, path: Tensor, counts: Tensor) -> None:
        """Of the last `tree` each row keeps its last token and the nodes `path` `[rows, m]`, one below the other.

        The first `counts` `[rows]` of them are meant; the others, which `rewind` takes back, may be any.
        """
        ...

    def look(self, tokens: Tensor, one_by_one: bool) -> tuple[Tensor, Tensor | None]:
        """Feed each of `tokens` `[rows, k]` behind its row as if it were alone.

        Returns:
            Logits `[rows, k, vocab]` and the last hidden states `[rows, k, size]`, if the model gives them.
        """
        ...

    def probe(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `forward` of `tokens` `[rows, count]` would return, and the last hidden states; nothing is kept of it."""
        ...

    def refeed(self, tokens: Tensor) -> None:
        """Feed `tokens` `[rows, count]` that were taken back, and whose results are known: `outputs` stay."""
        ...

    def take(self, chosen: Tensor) -> None:
        """Each row keeps candidate `chosen[i]` of the last `look`; `chosen` is `[rows]`, long."""
        ...

    def rewind(self, counts: Tensor | int) -> None:
        """Row i forgets its last `counts[i]` tokens; `counts` is `[rows]`, long, or one number for all."""
        ...

    def select(self, rows: Tensor, within: bool) -> None:
        """Row i continues what row `rows[i]` was; `rows` is `[new rows]`, long.

        `within` promises that each row continues one of the same input, so that prompts stay in place. Without it `outputs`
        follow as well.
        """
        ...

    def settle(self, length: int) -> None:
        """The host learns that every row holds `length` tokens."""
        ...

    def limit(self, length: int) -> None:
        """The host learns that no row holds more than `length` tokens."""
        ...

    def hide(self, hidden: Tensor) -> None:
        """Later forwards do not look at the columns behind the prompt that are in `hidden` `[rows, width]`, bool.

        They do at columns of an earlier `hide` that are no longer in it, and at those from `width` on. A wish: an engine
        that leaves masks to the model shows all.
        """
        ...

    def replay(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` gives, where possible by replaying what it did before."""
        ...

    def next_logits(self, logits: Tensor) -> Tensor:
        """Of `logits` `[rows, count, vocab]` those behind each row's first token, `[rows, vocab]`, for `replay`."""
        ...

    def in_float32(self, logits: Tensor) -> Tensor:
        """`logits` `[rows, vocab]` in float32, where possible in a place of their own for all steps."""
        ...

    def cache(self) -> Any:
        """The cache as a transformers object, or None if there is none."""
        ...

    def free(self) -> None:
        """Memory has run out: forget what is kept for later calls. What this call has stays until `close`."""
        ...

    def close(self) -> None:
        """Give back what was taken for this call."""
        ...
