"""Drafts that are trees: their form and paths by hand, and the tokens of plain decoding whatever the trees are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.session.trees import accepted, tree_form
from genmode.testing.harness.models import VOCAB, prompt, tiny

from .population_support import widths
from .session_support import run

NAMES = ("llama", "gpt2", "t5", "bart")


class Looks:
    """A state of which a tree's form needs no more."""

    host_reads_freely, device = True, torch.device("cpu")


def form_of(parents: list[list[int]], counts: list[int] | None = None, room: int = 99) -> Any:
    given, state = torch.tensor(parents), Looks()
    return tree_form(
        state, torch.zeros_like(given), given, None if counts is None else torch.tensor(counts), room  # type: ignore[arg-type]
    )  # fmt: skip


class TestForm:
    def test_by_hand(self) -> None:
        form = form_of([[-1, 0, 0, 2, -1], [-1, -1, -1, -1, -1]])
        assert form.depths.tolist() == [[1, 2, 2, 3, 1], [1] * 5]
        assert form.deepest == 3
        assert form.ancestors[0].int().tolist() == [
            [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 1],
        ]  # fmt: skip
        assert form.seen()[0].int().tolist() == [
            [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 0, 1, 1, 0],
            [1, 0, 0, 0, 0, 1],
        ]  # fmt: skip
        assert form.ahead()[0].tolist() == [0, 1, 2, 2, 3, 1]

    def test_nodes_too_deep_go_to_the_root(self) -> None:
        assert form_of([[-1, 0, 1, 2]], room=2).depths.tolist() == [[1, 2, 1, 1]]

    def test_the_accepted_path_by_hand(self) -> None:
        form = form_of([[-1, 0, 0, 2, -1]])
        draft = torch.tensor([[7, 8, 9, 5, 6]])
        # the root chose 7, which is node 0; there 9 was chosen, node 2; there 4, which is no node
        found = accepted(draft, form, torch.tensor([[7, 9, 1, 4, 2, 3]]))
        assert (found.tokens[0, :3].tolist(), found.counts.tolist()) == ([7, 9, 4], [3])
        assert found.path is not None
        assert found.path[0, :2].tolist() == [0, 2]
        found = accepted(draft, form, torch.tensor([[6, 9, 1, 4, 2, 3]]))  # node 4, and what was chosen there
        assert found.tokens[0, :2].tolist() == [6, 3]
        assert found.counts.tolist() == [2]
        assert accepted(draft, form, torch.tensor([[1, 9, 1, 4, 2, 3]])).counts.tolist() == [1]
        few = form_of([[-1, 0, 0, 2, -1]], counts=[2])  # nodes 2, 3 and 4 fill up
        assert accepted(draft, few, torch.tensor([[7, 9, 1, 4, 2, 3]])).counts.tolist() == [2]

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_paths_as_one_would_walk_them(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, 9))
        parents = [data.draw(st.integers(-1, node - 1)) for node in range(size)]
        draft = [data.draw(st.integers(0, 2)) for _ in range(size)]
        chosen = [data.draw(st.integers(0, 2)) for _ in range(size + 1)]
        found = accepted(torch.tensor([draft]), form_of([parents]), torch.tensor([chosen]))
        assert found.path is not None
        length = 0
        for node in range(size):  # every node all of whose ancestors, and itself, were chosen
            way = [node]
            while parents[way[0]] >= 0:
                way.insert(0, parents[way[0]])
            if all(draft[one] == chosen[parents[one] + 1] for one in way):
                length = max(length, len(way))
        assert found.counts.tolist() == [length + 1]
        at, tokens = -1, found.tokens[0].tolist()
        for token, node in zip(tokens[:length], found.path[0].tolist()[:length], strict=True):
            assert (parents[node], draft[node], chosen[at + 1]) == (at, token, token)
            at = node
        assert tokens[length] == chosen[at + 1]


def trees(session: genmode.Session, said: Tensor, generator: torch.Generator, size: int = 7) -> None:
    """Drafts a random tree of each row, one path of which says some of what `said` `[rows, decoded]` will be."""
    rows = session.rows
    parents = torch.stack([torch.randint(-1, max(node, 0), (rows,), generator=generator) if node else torch.full((rows,), -1)
                           for node in range(size)], dim=1)  # fmt: skip
    tokens = torch.randint(5, VOCAB, (rows, size), generator=generator)
    depth = torch.zeros(rows, size, dtype=torch.long)
    for node in range(size):
        above = parents[:, node].clamp(min=0)
        depth[:, node] = torch.where(parents[:, node] < 0, 0, depth.gather(1, above[:, None])[:, 0] + 1)
    at = session.history.lengths[:, None] - session.prompt_length + depth
    right = said.gather(1, at.clamp(max=said.shape[1] - 1))
    tokens = torch.where(torch.rand(rows, size, generator=generator) < 0.8, right, tokens)
    session.draft(tokens, parents=parents, counts=torch.randint(0, size + 1, (rows,), generator=generator))


def with_trees(said: Tensor, sample: bool, taken: list[int]) -> Callable[[genmode.Session], None]:
    def play(session: genmode.Session) -> None:
        generator = torch.Generator().manual_seed(3)
        for step in session.steps():
            if step.draft is None and session.history.level is not None:
                step.commit(step.sample() if sample else step.best())
            else:
                found = step.accepted(step.sample(each=True) if sample else step.best(each=True))
                step.commit(found.tokens, counts=found.counts, path=found.path)
                taken.extend((found.counts - 1).tolist())
            trees(session, said, generator)

    return play


PROCESSED: dict[str, Any] = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "dry_multiplier": 0.7}
FLAGS: list[dict[str, Any]] = [
    {}, {"eos_token_id": [5, 7, 9, 11, *range(50, 60)], "pad_token_id": 0}, PROCESSED, {"guidance_scale": 1.4},
]  # fmt: skip


class TestTrees:
    @pytest.mark.parametrize("flags", FLAGS, ids=["plain", "ends", "processed", "guided"])
    @pytest.mark.parametrize("name", NAMES)
    def test_greedy(self, name: str, flags: dict[str, Any]) -> None:
        more: dict[str, Any] = {"max_new_tokens": 20, **flags}
        if "guidance_scale" in flags and name in ("llama", "gpt2"):
            more["negative_prompt_ids"] = torch.tensor([[8, 9]])
        elif "guidance_scale" in flags:
            return
        expected = genmode.generate(tiny(name), **prompt(name, 3), do_sample=False, **more)
        said, taken = expected[:, 9 if name in ("llama", "gpt2") else 1 :], list[int]()
        model = tiny(name)
        seen, hook = widths(model) if name in ("llama", "gpt2") else ([], None)
        result = run(with_trees(said, False, taken), name, needs={"rollback"}, **more)
        assert torch.equal(result, expected)
        assert sum(taken) > (2 if "eos_token_id" in flags else 10)  # paths of several nodes are taken
        if hook is not None:
            hook.remove()
            if "guidance_scale" not in flags:
                assert len(seen) == 1 + len(taken) // 3  # one forward for each step

    @pytest.mark.parametrize("flags", [{"top_k": 0}, {**PROCESSED, "top_p": 0.9}], ids=["plain", "processed"])
    @pytest.mark.parametrize("name", NAMES)
    def test_seeded_sampling(self, name: str, flags: dict[str, Any]) -> None:
        more: dict[str, Any] = {"max_new_tokens": 20, "do_sample": True, "seed": [3, 4, 5], **flags}
        expected = genmode.generate(tiny(name), **prompt(name, 3), **more)
        taken: list[int] = []
        assert torch.equal(run(with_trees(expected[:, -20:], True, taken), name, needs={"rollback"}, **more), expected)
        assert sum(taken) > 10

    def test_what_is_recorded(self) -> None:
        returned = {
            "return_dict_in_generate": True,
            "output_scores": True,
            "output_logits": True,
            "output_hidden_states": True,
        }
        stock = tiny("llama").generate(**prompt("llama", 3), max_new_tokens=20, do_sample=False, **returned)
        ours = run(with_trees(stock.sequences[:, -20:], False, []), needs={"rollback"}, max_new_tokens=20, **returned)
        assert torch.equal(ours.sequences, stock.sequences)
        for mine, theirs in zip(ours.scores, stock.scores, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
        for mine, theirs in zip(ours.hidden_states[1:], stock.hidden_states[1:], strict=True):
            torch.testing.assert_close(mine[-1], theirs[-1], atol=1e-3, rtol=1e-3)

    @pytest.mark.parametrize(
        ("parents", "message"),
        [
            (torch.tensor([-1, 2, 1]), "node 1 of a drafted tree has the parent 2"),
            (torch.tensor([-1, 1, 0]), "node 1 of a drafted tree has the parent 1"),
            (torch.tensor([-2, 0, 0]), "node 0 of a drafted tree has the parent -2"),
            (torch.tensor([-1, 0]), r"tensor \[3\] or \[3, 3\], long; given torch.int64 \[2\]"),
            ([-1, 0, 0], "given list"),
        ],
    )
    def test_refused(self, parents: Any, message: str) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
                if step.index == 2:
                    session.draft(torch.ones(3, 3).long(), parents=parents)

        with pytest.raises(genmode.DecodingError, match=message) as caught:
            run(play, needs={"rollback"})
        assert caught.value.sequences.shape == (3, 12)

    def test_commits_that_do_not_fit(self) -> None:
        def chain(session: genmode.Session) -> None:
            for step in session.steps():
                if step.draft is None:
                    step.commit(step.best())
                else:
                    step.commit(step.best(each=True), counts=torch.ones(3).long())
                session.draft(torch.ones(3, 3).long(), parents=torch.tensor([-1, 0, 0]))

        def no_tree(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(
                    step.best()[:, None].expand(-1, 2), counts=torch.ones(3).long(), path=torch.zeros(3, 1).long()
                )

        def probed(session: genmode.Session) -> None:
            for step in session.steps():
                if step.draft is not None:
                    session.probe(torch.ones(3, 1).long())
                step.commit(step.best())
                session.draft(torch.ones(3, 3).long(), parents=torch.tensor([-1, 0, 0]))

        for play, message in ((chain, "with path="), (no_tree, "this step has none"), (probed, "probe behind commit")):
            with pytest.raises(genmode.GenmodeError, match=message):
                run(play, needs={"rollback"})
