"""Rows that fork, leave, and rest once they have ended."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.sampling import counter_rng
from genmode.session.noise import SeededNoise
from genmode.testing.harness.models import prompt, tiny

from .population_support import FORKS, NAMES, SAMPLED, sampled, widths
from .session_support import run


class TestFork:
    def test_keys_by_hand(self) -> None:
        def forked(key: int, count: int) -> int:
            return int(counter_rng.forked(torch.tensor([key]), torch.tensor([count])))

        noise = SeededNoise(torch.tensor([11, 22]))
        noise.select(torch.tensor([0, 1, 1, 0, 1]))
        keys = [11, 22, forked(22, 0), forked(11, 0), forked(22, 1)]
        assert noise.keys.tolist() == keys
        assert noise.forks.tolist() == [1, 2, 0, 0, 0]
        noise.select(torch.tensor([1, 2, 1]))  # row 1 has forked twice before
        assert noise.keys.tolist() == [22, keys[2], forked(22, 2)]
        noise.select(torch.tensor([2, 0]))
        assert noise.keys.tolist() == [forked(22, 2), 22]
        assert noise.forks.tolist() == [0, 3]

    @pytest.mark.parametrize("name", [*NAMES, "mamba"])
    def test_greedy_forks_say_what_their_parents_say(self, name: str) -> None:
        def play(session: genmode.Session) -> None:
            session.fork(torch.tensor([2, 0]))
            for step in session.steps():
                step.commit(step.best())
                if step.index == 3:
                    session.fork(torch.tensor([1]))
            assert session.inputs.tolist() == [0, 1, 2, 2, 0, 1]

        result = run(play, name, needs=FORKS, pad_token_id=0)
        alone = tiny(name).generate(**prompt(name, 3), max_new_tokens=10, do_sample=False, pad_token_id=0)
        assert torch.equal(result, alone[[0, 0, 1, 1, 2, 2]])  # in the end those of an input stand together

    def test_siblings_part_and_the_parent_goes_on(self) -> None:
        def play(session: genmode.Session) -> None:
            def then(index: int) -> None:
                if index == 3:
                    session.fork(torch.tensor([0, 0, 0]))

            sampled(session, then)

        result = run(play, rows=1, needs=FORKS, seed=3, **SAMPLED)
        alone = run(sampled, rows=1, seed=3, **SAMPLED)
        assert torch.equal(result[:1], alone)
        assert len({tuple(row) for row in result[:, :-6].tolist()}) == 1
        assert len({tuple(row) for row in result[:, -6:].tolist()}) == 4

    def test_a_row_does_not_depend_on_the_batch(self) -> None:
        def play(session: genmode.Session) -> None:
            def then(index: int) -> None:
                every = torch.arange(session.rows)
                if index == 2:
                    session.fork(every.repeat_interleave(2))
                if index == 5:
                    firsts = torch.stack([(session.inputs == one).int().argmax() for one in session.inputs.unique()])
                    session.drop(firsts)

            sampled(session, then)

        inputs = prompt("llama", 3)
        together = run(play, inputs=inputs, needs=FORKS, seed=[4, 5, 6], **SAMPLED)
        for row in range(3):
            one = {key: value[row : row + 1] for key, value in inputs.items()}
            alone = run(play, inputs=one, needs=FORKS, seed=[4 + row], **SAMPLED)
            assert torch.equal(together[2 * row : 2 * row + 2], alone)

    def test_processors_and_side_models_follow(self) -> None:
        flags: dict[str, Any] = {
            "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "guidance_scale": 1.5, "dry_multiplier": 0.8,
            "negative_prompt_ids": torch.tensor([[8, 9]]),
        }  # fmt: skip

        def forked(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
                if step.index == 2:
                    session.fork(torch.tensor([1, 0, 1]))
                    session.drop(torch.tensor([0, 1]))

        def plain(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())

        result, alone = (run(play, rows=2, needs=FORKS, **flags) for play in (forked, plain))
        assert torch.equal(result, alone[[0, 1, 1]])

    def test_scores_and_states_are_those_of_the_rows_in_the_end(self) -> None:
        def play(session: genmode.Session) -> None:
            def then(index: int) -> None:
                if index == 4:
                    session.fork(torch.tensor([1]))
                    session.drop(torch.tensor([1]))

            sampled(session, then)

        returned = {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True}
        result = run(play, rows=2, needs=FORKS, seed=2, **SAMPLED, **returned)
        assert result.past_key_values.get_seq_length() == result.sequences.shape[1] - 1
        again = run(play, rows=2, needs=FORKS, seed=2, **SAMPLED)
        assert torch.equal(result.sequences, again)
        alone = genmode.generate(
            tiny("llama"), **prompt("llama", 2), max_new_tokens=10, seed=2, **SAMPLED, **returned
        )  # fmt: skip
        assert torch.equal(result.sequences[0], alone.sequences[0])
        for ours, theirs in zip(result.scores, alone.scores, strict=True):
            torch.testing.assert_close(ours[0], theirs[0], atol=1e-4, rtol=1e-4)
        for row in (0, 1):
            inside = prompt("llama", 2)["attention_mask"][row].bool()
            tokens = torch.cat([result.sequences[row, :9][inside], result.sequences[row, 9:]])
            logits = tiny("llama")(tokens[None]).logits[0, -11:-1]  # behind each token but the last
            torch.testing.assert_close(torch.stack(result.scores)[:, row], logits, atol=1e-4, rtol=1e-4)
        assert all(states[-1].shape[0] == 2 for states in result.hidden_states)

    def test_memory(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
                session.fork(torch.zeros(1, dtype=torch.long).expand(2**40))

        with pytest.raises(genmode.DecodingError, match="fork fewer, drop others first") as caught:
            run(play, rows=2, needs=FORKS)
        assert caught.value.sequences.shape == (2, 10)


class TestDrop:
    def test_forwards_get_narrower(self) -> None:
        def play(session: genmode.Session) -> None:
            def then(index: int) -> None:
                if index in (2, 5):
                    session.drop(torch.arange(session.rows)[session.rows // 2 :])

            sampled(session, then)

        seen, hook = widths(tiny("llama"))
        with hook:
            result = run(play, rows=1, needs=FORKS, num_return_sequences=8, seed=1, **SAMPLED)
        assert seen == [1, 8, 8, 4, 4, 4, 2, 2, 2, 2]
        every = run(sampled, rows=1, needs=FORKS, num_return_sequences=8, seed=1, **SAMPLED)
        assert torch.equal(result, every[:2])
        stock = run(sampled, rows=1, num_return_sequences=8, seed=1, **SAMPLED)
        assert torch.equal(every, stock)  # the rows that a population starts with draw as those of num_return_sequences

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (torch.arange(3), "leaves no row of input 0, 1, 2"),
            (torch.tensor([1]), "leaves no row of input 1"),
            (torch.tensor([3]), "numbered from 0 to 2"),
            (torch.tensor([0.0]), r"numbers of rows, \[n\], long"),
            (torch.tensor([], dtype=torch.long), r"numbers of rows, \[n\], long"),
        ],
    )
    def test_refused(self, rows: Tensor, message: str) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
                if step.index == 3:
                    session.drop(rows)

        with pytest.raises(genmode.DecodingError, match=message) as caught:
            run(play, needs=FORKS)
        assert caught.value.sequences.shape == (3, 9 + 4)

    def test_without_saying_so_and_before_the_commit(self) -> None:
        def early(session: genmode.Session) -> None:
            for step in session.steps():
                session.fork(torch.tensor([0]))
                step.commit(step.best())

        with pytest.raises(genmode.UnsupportedError, match=r'needs = {"population"}'):
            run(lambda session: session.fork(torch.tensor([0])))
        with pytest.raises(genmode.DecodingError, match=r"fork comes behind commit"):
            run(early, needs=FORKS)


class TestRowsAtRest:
    def test_ended_rows_leave_the_forward(self) -> None:
        ids = torch.randint(10, 90, (8, 6), generator=torch.Generator().manual_seed(1))
        flags: dict[str, Any] = {"max_new_tokens": 30, **SAMPLED, "eos_token_id": list(range(5, 25))}
        model = tiny("llama")
        seen, hook = widths(model)
        with hook:
            together = genmode.generate(model, ids, seed=list(range(8)), **flags)
        assert seen[0] == 8
        assert seen == sorted(seen, reverse=True)
        assert seen[-1] == 1
        for row in range(8):
            alone = genmode.generate(model, ids[row : row + 1], seed=row, **flags)[0]
            assert torch.equal(together[row, : len(alone)], alone)

    @pytest.mark.parametrize("more", [{}, {"prompt_lookup_num_tokens": 3}, {"repetition_penalty": 1.3}])
    def test_results_are_those_of_transformers(self, more: dict[str, Any]) -> None:
        model = tiny("llama")
        flags: dict[str, Any] = {"max_new_tokens": 30, "pad_token_id": 0, "eos_token_id": list(range(5, 25))}
        stock = {key: value for key, value in more.items() if key != "prompt_lookup_num_tokens"}
        for seed in range(5):
            ids = torch.randint(10, 90, (6, 6), generator=torch.Generator().manual_seed(seed))
            expected = model.generate(ids, do_sample=False, **flags, **stock)
            assert torch.equal(genmode.generate(model, ids, do_sample=False, **flags, **more), expected)
