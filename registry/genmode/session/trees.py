"""Drafts that are trees: their form, and the path of one along which every token was chosen.

Node i of a row has a parent among the nodes before it, or -1 for the row's last token. One forward runs all nodes, each
seeing the text and its own ancestors alone (Miao et al. 2024, "SpecInfer", https://arxiv.org/abs/2305.09781, section
4.2: tree attention). A node is accepted if it and all its ancestors are what was chosen at their parents; of siblings
with one token the first counts. So each row takes what it would have taken one token at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..contract.session import Accepted
from ..engines.engine import TreeForm

if TYPE_CHECKING:
    from .state import DecodeState


def tree_form(state: DecodeState, tokens: Tensor, parents: Any, counts: Any, room: int) -> TreeForm:
    """The form of a draft `tokens` `[rows, n]`; nodes deeper than `room`, which no row could take, go to the root.

    Args:
        parents: `[rows, n]` or `[n]`, long.
        counts: `[rows]`, long: nodes that are meant in each row; None for all.

    Raises:
        ValueError: a parent is no node before its child, or a shape is another.
    """
    rows, size = tokens.shape
    if (
        not isinstance(parents, Tensor)
        or parents.dtype != torch.long
        or tuple(parents.shape) not in ((size,), (rows, size))
    ):
        given = f"{parents.dtype} {list(parents.shape)}" if isinstance(parents, Tensor) else type(parents).__name__
        raise ValueError(
            f"parents of {size} drafted tokens are a tensor [{size}] or [{rows}, {size}], long; given {given}"
        )
    if counts is not None and (not isinstance(counts, Tensor) or tuple(counts.shape) != (rows,)):
        raise ValueError(f"counts of a draft are a tensor [{rows}], long: how many nodes each row has")
    index = torch.arange(size, device=parents.device)
    if state.host_reads_freely or parents.device.type == "cpu":
        wrong = (parents >= index) | (parents < -1)
        if bool(wrong.any()):
            place = int(wrong.flatten().long().argmax())
            node, parent = place % size, int(parents.flatten()[place])
            raise ValueError(
                f"node {node} of a drafted tree has the parent {parent}: give -1 for the row's last token, or a node before "
                f"it, 0 to {node - 1}; so there are no cycles"
            )
    parents = parents.clamp(min=-1).minimum(index - 1).to(state.device).expand(rows, size)
    form = _form(parents, None if counts is None else counts.to(state.device), state.host_reads_freely)
    if form.deepest > room and state.host_reads_freely:
        form = _form(parents.masked_fill(form.depths > room, -1), form.counts, True)
    return form


def _form(parents: Tensor, counts: Tensor | None, looks: bool) -> TreeForm:
    """The form of trees with these parents `[rows, n]`; the host may look where `looks`."""
    size = parents.shape[1]
    index = torch.arange(size, device=parents.device)
    reached = torch.eye(size, dtype=torch.bool, device=parents.device) | (parents[:, :, None] == index)  # 1 generation
    steps = 1
    while steps < size:  # twice as many generations each time
        reached = torch.matmul(reached.float(), reached.float()) > 0
        steps *= 2
    depths = reached.sum(-1)
    return TreeForm(parents, reached, depths, int(depths.max()) if looks else size, counts)


def filled(tokens: Tensor, form: TreeForm, fill: int) -> tuple[Tensor, TreeForm]:
    """A draft `tokens` `[rows, n]` with `fill` more nodes behind the root, which are not meant."""
    if not fill:
        return tokens, form
    counts = torch.full_like(tokens[:, 0], tokens.shape[1]) if form.counts is None else form.counts
    tokens = torch.cat([tokens, tokens[:, -1:].expand(-1, fill)], dim=1)
    parents = torch.nn.functional.pad(form.parents, (0, fill), value=-1)
    return tokens, _form(parents, counts, False)


def accepted(draft: Tensor | None, form: TreeForm | None, chosen: Tensor) -> Accepted:
    """See `genmode.contract.session.Step.accepted`."""
    if draft is None:
        return Accepted(chosen[:, :1], torch.ones_like(chosen[:, 0]), None)
    if form is None:
        agreed = (draft == chosen[:, : draft.shape[1]]).long().cumprod(1).sum(1)
        return Accepted(chosen, agreed + 1, None)
    rows, size = draft.shape
    index = torch.arange(size, device=draft.device)
    match = draft == chosen.gather(1, form.parents + 1)
    if form.counts is not None:
        match = match & (index < form.counts[:, None])
    whole = (match[:, None, :] | ~form.ancestors).all(-1)  # all ancestors and itself
    rank = (form.depths * (size + 1) - index).masked_fill(~whole, 0)  # the deepest, the first of equals
    best, last = rank.max(1)
    agreed = form.depths.gather(1, last[:, None])[:, 0].where(best > 0, 0)
    on_path = form.ancestors.gather(1, last[:, None, None].expand(-1, 1, size))[:, 0]
    path = (~on_path).int().argsort(dim=1, stable=True)[:, : form.deepest]  # ancestors come before their children
    places = torch.cat([path.new_zeros(rows, 1), path + 1], dim=1)
    return Accepted(chosen.gather(1, places), agreed + 1, path)


def paths_of(form: TreeForm, node: int) -> Tensor:
    """The nodes on each row's way to one, itself the last: `[rows, deepest]`, long; beyond its depth anything."""
    return (~form.ancestors[:, node]).int().argsort(dim=1, stable=True)[:, : form.deepest]
