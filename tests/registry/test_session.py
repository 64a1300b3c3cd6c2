"""The session's contract: whatever a strategy does, logits, tokens and processors stay those of its rows."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.session import History
from genmode.session.slab import Slab
from genmode.testing.models import BOS, VOCAB, greedy, ids, prompt, tiny
from genmode.testing.strategies import Ledger


class Script(genmode.Strategy):
    """Runs the function that a test gives it."""

    contract_version = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    play: ClassVar[Callable[[genmode.Session], None]]

    def decode(self, session: genmode.Session, params: genmode.Params) -> None:
        type(self).play(session)


def run(play: Callable[[genmode.Session], None], name: str = "llama", rows: int = 3, **flags: Any) -> Any:
    """Decode with `play(session)` as the strategy; `needs`, `beams` and `inputs` are for the test."""
    needs, beams = frozenset(flags.pop("needs", ())), flags.pop("beams", 1)
    body = {"play": staticmethod(play), "needs": needs, "flags": {"num_beams": beams}, "contract_version": 1}
    strategy = type("Scripted", (Script,), body)
    inputs = flags.pop("inputs", None) or prompt(name, rows)
    return genmode.generate(tiny(name), **inputs, strategy=strategy, **{"max_new_tokens": 10, **flags})


def choose(step: genmode.Step) -> Tensor:
    return step.scores.argmax(-1)


class TestSteps:
    def test_a_strategy_of_two_lines(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step))

        for name in ("llama", "bart", "mamba"):
            assert torch.equal(run(play, name)[:, -10:], greedy(name, 3, 10))

    def test_what_the_session_tells(self) -> None:
        told: dict[str, Any] = {}

        def play(session: genmode.Session) -> None:
            names = ("rows", "inputs", "copies", "vocab_size", "eos_token_ids", "pad_token_id", "max_length",
                     "prompt_length", "encoder_input_ids", "model", "tokenizer", "streams")  # fmt: skip
            told.update({name: getattr(session, name) for name in names})
            told["device"] = session.device.type
            for step in session.steps():
                assert (step.index, step.draft) == (session.decoded[0], None)
                assert step.logits.shape == (6, VOCAB)
                assert step.logits.dtype == torch.float32
                told["starts"] = session.history.starts.tolist()
                step.commit(choose(step))
            told["left"] = session.unfinished.tolist()

        run(play, beams=2, eos_token_id=[7, 8])
        assert told == {
            "rows": 6, "inputs": 3, "copies": 2, "vocab_size": VOCAB, "eos_token_ids": [7, 8], "pad_token_id": 0,
            "max_length": 19, "prompt_length": 9, "encoder_input_ids": None, "model": tiny("llama"), "tokenizer": None,
            "streams": False, "device": "cpu", "starts": [0, 0, 3, 3, 1, 1], "left": [True] * 6,
        }  # fmt: skip

    def test_the_encoders_input(self) -> None:
        def play(session: genmode.Session) -> None:
            assert torch.equal(session.encoder_input_ids, prompt("bart", 3)["input_ids"])
            assert session.prompt_length == 1
            assert session.history.ids.tolist() == [[BOS]] * 3
            for step in session.steps():
                step.commit(choose(step))

        run(play, "bart")

    def test_leaving_the_loop(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step))
                if step.index == 3:
                    break

        assert torch.equal(run(play)[:, 9:], greedy("llama", 3, 4))

    def test_without_steps_the_prompt_is_the_result(self) -> None:
        assert torch.equal(run(lambda session: None), prompt("llama", 3)["input_ids"])

    def test_committing_twice(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step))
                if step.index == 2:
                    step.commit(choose(step))

        with pytest.raises(genmode.DecodingError, match=r"'scripted' failed at step 2: .*already committed") as caught:
            run(play)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert torch.equal(caught.value.sequences[:, 9:], greedy("llama", 3, 3))
        assert (caught.value.step, caught.value.component) == (2, "scripted")

    def test_not_committing(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                if step.index < 1:
                    step.commit(choose(step))

        with pytest.raises(genmode.DecodingError, match=r"ended step 1 without commit\(tokens\)") as caught:
            run(play)
        assert caught.value.step == 1
        assert caught.value.sequences.shape == (3, 10)

    def test_misuse_of_drafts_and_looks(self) -> None:
        def reorder_with_draft(session: genmode.Session) -> None:
            for step in session.steps():
                if step.draft is not None:
                    step.commit(torch.zeros(3, 3).long(), counts=torch.ones(3).long(), rows=torch.arange(3))
                step.commit(choose(step))
                session.draft(torch.ones(3, 2).long())

        def take_without_looking(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step), taken=torch.zeros(3).long())

        def level_commit_of_uneven_rows(session: genmode.Session) -> None:
            for step in session.steps():
                if step.draft is None:
                    step.commit(choose(step))
                    if step.index == 0:
                        session.draft(torch.ones(3, 2).long())
                else:
                    step.commit(torch.ones(3, 3).long(), counts=torch.tensor([1, 2, 3]))

        for play, message in (
            (reorder_with_draft, "cannot reorder rows"),
            (take_without_looking, r"follows look\(\)"),
            (level_commit_of_uneven_rows, "rows differ in length"),
        ):
            with pytest.raises(genmode.DecodingError, match=message):
                run(play, needs={"rollback"})

    def test_stop_when(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps(ending=False):
                step.commit(choose(step))
                session.stop_when(session.decoded.amax() == 4)

        assert torch.equal(run(play)[:, 9:], greedy("llama", 3, 4))

    def test_cancelled_between_two_steps(self) -> None:
        cancel, forwards = threading.Event(), 0

        def play(session: genmode.Session) -> None:
            nonlocal forwards
            ahead = session.forerunner(session.model)
            for step in session.steps():
                ahead.catch_up(session.history, 1)
                for forwards in range(1, 100):
                    session.check_cancelled()
                    ahead.feed(choose(step))
                    if forwards == 5:
                        cancel.set()

        with pytest.raises(genmode.CancelledError) as caught:
            run(play, cancel=cancel, needs={"rollback"})
        assert forwards == 6
        assert torch.equal(caught.value.sequences, prompt("llama", 3)["input_ids"])

    def test_finish(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step))
            session.finish(session.history.ids[::2, :12], scores=torch.tensor([1.0, 2.0]))

        assert torch.equal(run(play)[:, 9:], greedy("llama", 3, 3)[::2])
        result = run(play, return_dict_in_generate=True, output_scores=True)
        assert isinstance(result, transformers.generation.GenerateBeamDecoderOnlyOutput)
        assert result.sequences_scores.tolist() == [1.0, 2.0]

    def test_finished_rows_are_padded(self) -> None:
        free = greedy("llama", 3, 10)
        eos = int(free[1, 2])

        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step))

        decoded = run(play, eos_token_id=eos)[1, 9:].tolist()
        assert decoded[: decoded.index(eos) + 1] == free[1].tolist()[: decoded.index(eos) + 1]
        assert set(decoded[decoded.index(eos) + 1 :]) == {0}

    def test_strategies_that_end_rows_themselves_are_not_padded(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps(ending=False):
                step.commit(torch.full((3,), 7))
            assert session.unfinished.all()

        assert run(play, eos_token_id=7)[:, 9:].tolist() == [[7] * 10] * 3

    def test_a_row_that_continues_a_finished_one_is_finished(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                if step.index == 0:
                    step.commit(torch.tensor([7, 20, 7, 20]))
                elif step.index == 1:
                    step.commit(torch.tensor([30, 31, 32, 33]), rows=torch.tensor([1, 0, 3, 2]))
                else:
                    step.commit(torch.tensor([40, 41, 42, 43]))

        decoded = run(play, rows=2, beams=2, eos_token_id=7, max_new_tokens=3)[:, 9:]
        assert decoded.tolist() == [[20, 30, 40], [7, 0, 0], [20, 32, 42], [7, 0, 0]]

    def test_done_after(self) -> None:
        def ends_with_twins(ids: Tensor, scores: Any) -> Tensor:
            return ids[:, -1] == ids[:, -2]

        def play(session: genmode.Session) -> None:
            for step in session.steps(ending=False):
                if step.index == 1:
                    last = session.history.ids[:, -1].tolist()
                    done = session.done_after(
                        torch.tensor([0, 0, 0, 2, 2]), torch.tensor([7, 9, last[0], last[2], last[0]])
                    )
                    assert done.tolist() == [True, False, True, True, False]
                if step.index == 9:
                    assert session.done_after(torch.tensor([0, 1]), torch.tensor([50, 51])).tolist() == [True, True]
                step.commit(torch.tensor([20, 21, 22]) + step.index)

        run(play, eos_token_id=7, criteria=ends_with_twins)

    def test_surely_none(self) -> None:
        def play(session: genmode.Session) -> None:
            assert session.surely_none(torch.zeros(3, dtype=torch.bool))
            assert not session.surely_none(torch.tensor([False, True]))

        run(play)

    def test_the_scores_of_a_strategy_are_recorded(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.scores = step.logits * 0 + step.index
                step.commit(choose(step))

        result = run(play, return_dict_in_generate=True, output_scores=True, output_logits=True)
        assert [float(scores[0, 0]) for scores in result.scores] == list(range(10))
        assert float(result.logits[1].std()) > 0.1

    def test_what_a_strategy_needs_of_the_model(self) -> None:
        seen: list[Any] = []

        def play(session: genmode.Session) -> None:
            for step in session.steps():
                seen.append(step.outputs.hidden_states[-1][:, -1].shape)
                step.commit(choose(step))

        run(play, needs={"hidden_states"})
        run(play, needs={"hidden_states"}, use_cache=False)
        assert set(seen) == {(3, 32)}


@pytest.mark.oldest
class TestRandomNumbers:
    @given(st.integers(1, 5), st.integers(2, 40), st.integers(1, 3), st.integers(0, 2**31))
    @settings(max_examples=25)
    def test_multinomial_draws_as_torch(self, rows: int, width: int, count: int, seed: int) -> None:
        drawn: list[Tensor] = []
        weights = torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)) + 1e-3
        count = min(count, width)

        def play(session: genmode.Session) -> None:
            torch.manual_seed(seed)
            drawn.append(session.multinomial(weights, count))
            drawn.append(torch.rand(1))
            torch.manual_seed(seed)
            drawn.append(torch.multinomial(weights, count))
            drawn.append(torch.rand(1))

        run(play, rows=rows)
        assert torch.equal(drawn[0], drawn[2])
        assert torch.equal(drawn[1], drawn[3])

    def test_uniform(self) -> None:
        numbers: list[Tensor] = []

        def play(session: genmode.Session) -> None:
            numbers.append(session.uniform())

        torch.manual_seed(3)
        run(play)
        torch.manual_seed(3)
        assert torch.equal(numbers[0], torch.rand(3))

    @pytest.mark.parametrize("seed", [None, 3])
    def test_a_rehearsal_repeats_no_numbers(self, seed: int | None) -> None:
        drawn: list[Tensor] = []

        def play(session: genmode.Session) -> None:
            for step in session.steps():
                for _ in range(3):
                    drawn.append(session.uniform())
                    with session.rehearse() as guess:
                        guess.take(guess.draw(guess.scores(step.scores.clone())))
                step.commit(choose(step))

        torch.manual_seed(1)
        run(play, seed=seed, max_new_tokens=2, do_sample=True)
        found = torch.cat(drawn)  # [2 steps * 3 * 3 rows]
        assert len(found.unique()) == (18 if seed is None else 6)  # one seed serves all rows


def expected(name: str, context: Tensor, source: Mapping[str, Tensor], row: int) -> Tensor:
    """Logits behind every token of one row, run from scratch: `[tokens, vocab]`."""
    inputs: dict[str, Any] = {"input_ids": context[None]}
    if name in ("t5", "bart"):
        inputs = {key: value[row, None] for key, value in source.items()} | {"decoder_input_ids": context[None]}
    result: Tensor = tiny(name)(**inputs).logits[0].float()
    return result


class Mirror(Ledger):
    """Keeps each row's tokens, prompt included, and holds them against the history."""

    def begin(self, session: genmode.Session) -> None:
        super().begin(session)
        self.checked = 0
        self.rows = [row.tolist() for row in session.history.ids]

    def process(self, scores: Tensor, history: History) -> Tensor:
        for row, tokens in enumerate(self.rows):
            if self.session.unfinished[row]:
                assert tokens == history.tokens[row, : history.lengths[row]].tolist()
                self.checked += 1
        return scores


class Anything:
    """Does at random what a strategy may do, and compares what the session says with forwards from scratch."""

    def __init__(self, name: str, seed: int, source: Mapping[str, Tensor], drafts: bool, beside: bool) -> None:
        self.name, self.source, self.drafts, self.beside = name, source, drafts, beside
        self.dice = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.done: set[str] = set()

    def tokens(self, *shape: int) -> Tensor:
        return torch.randint(5, 95, shape, generator=self.torch)

    def __call__(self, session: genmode.Session) -> None:
        self.session = session
        context = ids(session.inputs, 5, seed=8)
        companion = session.companion(context) if self.beside else None
        for step in session.steps():
            self.check(step)
            if companion is not None and self.dice.random() < 0.7:
                for row in range(session.rows):
                    decoded = session.history.tokens[row, session.prompt_length : session.history.lengths[row]]
                    if session.unfinished[row]:
                        whole = torch.cat([context[row // session.copies], decoded])
                        self.close(companion.logits()[row], expected(self.name, whole, self.source, 0)[-1])
            self.act(step)

    def check(self, step: genmode.Step) -> None:
        history = self.session.history
        for row in self.session.unfinished.nonzero()[:, 0].tolist():
            text = history.tokens[row, history.starts[row] : history.lengths[row]]
            drafted = step.draft[row] if step.draft is not None else text[:0]
            wanted = expected(self.name, torch.cat([text, drafted]), self.source, row // self.session.copies)
            room = self.session.max_length - int(
                history.lengths[row]
            )  # what a draft says behind the longest result is never used
            self.close(step.each_logits[row, :room], wanted[len(text) - 1 :][:room])
            self.close(step.logits[row], wanted[len(text) - 1])

    def close(self, ours: Tensor, wanted: Tensor) -> None:
        torch.testing.assert_close(ours, wanted, atol=2e-4, rtol=2e-4)

    def act(self, step: genmode.Step) -> None:
        session, rows = self.session, self.session.rows
        if step.draft is not None or session.history.uniform is None:
            self.done.add("ragged" if session.history.uniform is None else "draft")
            width = 1 + (step.draft.shape[1] if step.draft is not None else 0)
            if self.dice.random() < 0.5:
                assert step.each_scores.shape == (rows, width, VOCAB)
            counts = torch.randint(1, width + 1, (rows,), generator=self.torch)
            chosen = self.tokens(rows, width)
            if step.draft is not None:
                kept = torch.arange(width - 1) < counts[:, None] - 1
                chosen[:, :-1] = step.draft.where(kept, chosen[:, :-1])
            step.commit(chosen, counts=counts)
        else:
            if self.dice.random() < 0.5:
                assert step.scores.shape == (rows, VOCAB)
            acts = ["plain", "look"] + (["reorder"] * 3 if session.copies > 1 else [])
            act = self.dice.choice(acts)
            self.done.add(act)
            if act == "plain":
                step.commit(self.tokens(rows))
            elif act == "look":
                self.look(step)
            else:
                within = torch.randint(session.copies, (rows,), generator=self.torch)
                first = torch.arange(rows) // session.copies * session.copies
                step.commit(self.tokens(rows), rows=first + within)
        if self.drafts and self.dice.random() < 0.6:
            session.draft(self.tokens(rows, self.dice.randint(1, 4)))

    def look(self, step: genmode.Step) -> None:
        session = self.session
        candidates = self.tokens(session.rows, 3)
        found = step.look(candidates, one_by_one=self.dice.random() < 0.5)
        for row in session.unfinished.nonzero()[:, 0].tolist():
            text = session.history.tokens[row, session.history.starts[row] : session.history.lengths[row]]
            for place, token in enumerate(candidates[row]):
                wanted = expected(self.name, torch.cat([text, token[None]]), self.source, row // session.copies)
                self.close(found.logits[row, place], wanted[-1])
        taken = torch.randint(3, (session.rows,), generator=self.torch)
        step.commit(candidates.gather(1, taken[:, None])[:, 0], taken=taken)


CASES = {
    "slab": ("llama", 3, 1, {}),
    "slab, beams": ("llama", 2, 3, {}),
    "slab, eager attention": ("gpt2", 3, 2, {}),
    "portable": ("llama", 3, 1, {"prefill_chunk_size": 64}),
    "portable, beams": ("qwen2", 2, 2, {"prefill_chunk_size": 64}),
    "sliding window": ("gemma3", 3, 1, {}),
    "sliding window, beams": ("gemma3", 1, 3, {}),
    "encoder": ("bart", 3, 1, {}),
    "encoder, beams": ("t5", 2, 2, {}),
    "no cache": ("llama", 2, 2, {"use_cache": False}),
}


@pytest.mark.oldest
@pytest.mark.parametrize("case", CASES)
def test_whatever_a_strategy_does(case: str) -> None:
    name, rows, beams, flags = CASES[case]
    done: set[str] = set()

    @given(st.integers(0, 10**6), st.booleans())
    @settings(max_examples=5)
    def play(seed: int, drafts: bool) -> None:
        source, mirror = prompt(name, rows), Mirror()
        beside = name not in ("t5", "bart") and beams == 1 and flags.get("use_cache", True)
        anything = Anything(name, seed, source, drafts, beside)
        run(
            anything, name, inputs=source, beams=beams, needs={"rollback"} if drafts else (), processors=mirror,
            eos_token_id=[40, 41, 42], max_new_tokens=9, **flags,
        )  # fmt: skip
        done.update(anything.done)

    play()
    assert done >= {"plain", "look", "draft", "ragged"} | ({"reorder"} if beams > 1 else set())


@pytest.mark.parametrize(("name", "rows", "beams"), [("mamba", 1, 1), ("mamba", 1, 3), ("lfm2", 1, 2)])
def test_whatever_a_strategy_does_to_a_recurrent_model(name: str, rows: int, beams: int) -> None:
    @given(st.integers(0, 10**6))
    @settings(max_examples=5)
    def play(seed: int) -> None:
        source = prompt(name, rows)
        run(Anything(name, seed, source, False, False), name, inputs=source, beams=beams, processors=Mirror())

    play()


class TestHistory:
    def rows(self, uniform: bool = True) -> History:
        tokens = torch.tensor([[0, 1, 2, 3, 77], [4, 5, 6, 7, 77]])
        lengths = torch.tensor([4, 4] if uniform else [2, 4])
        return History(tokens, lengths, torch.tensor([1, 0]), 2, 4 if uniform else None, 4)

    def test_rows_of_one_length(self) -> None:
        history = self.rows()
        assert (history.rows, history.bound) == (2, 4)
        assert history.ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert [(ids.tolist(), mask) for ids, mask in history.rectangles()] == [(history.ids.tolist(), None)]

    def test_rows_of_their_own_lengths(self) -> None:
        history = self.rows(uniform=False)
        with pytest.raises(ValueError, match=r"history\.tokens up to history\.lengths"):
            _ = history.ids
        short, long = history.rectangles()
        assert (short[0].tolist(), short[1].tolist()) == ([[0, 1], [4, 5]], [True, False])
        assert (long[0].tolist(), long[1].tolist()) == ([[0, 1, 2, 3], [4, 5, 6, 7]], [False, True])

    def test_write_and_ahead(self) -> None:
        level, uneven = self.rows(), self.rows(uniform=False)
        level.write(torch.tensor([[8, 9], [10, 11]]))
        assert level.tokens[:, :6].tolist() == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7, 10, 11]]
        assert level.uniform == 4
        assert level.ahead(2).ids.tolist() == level.tokens[:, :6].tolist()
        uneven.write(torch.tensor([[8, 9], [10, 11]]))
        assert uneven.tokens[0, :4].tolist() == [0, 1, 8, 9]
        assert uneven.tokens[1, :6].tolist() == [4, 5, 6, 7, 10, 11]
        assert uneven.lengths.tolist() == [2, 4]
        assert uneven.ahead(1).lengths.tolist() == [3, 5]
        assert uneven.ahead(0) is uneven

    def test_reserve_keeps_what_is_there(self) -> None:
        history = self.rows()
        history.reserve(5)
        assert history.tokens.shape == (2, 5)
        history.reserve(6)
        assert history.tokens.shape == (2, 10)
        assert history.ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]

    def test_select(self) -> None:
        history = self.rows(uniform=False)
        history.select(torch.tensor([1, 1, 0]))
        assert history.tokens[:, 0].tolist() == [4, 4, 0]
        assert history.lengths.tolist() == [4, 4, 2]
        assert history.starts.tolist() == [0, 0, 1]


def states(*values: float, tokens: int = 1) -> Tensor:
    """Keys of one head of width 1: `[rows, 1, tokens, 1]`; row r's tokens are values[r], values[r] + 1, ..."""
    first = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
    return first + torch.arange(tokens).view(1, 1, -1, 1)


class TestSlab:
    def filled(self, rows: int = 2) -> Slab:
        """A slab of one layer with two tokens a row: 10 11 in the first row, 20 21 in the second, ..."""
        slab = Slab(1, rows, 4)
        slab.layers[0].update(
            states(*[10.0 * (row + 1) for row in range(rows)], tokens=2), states(*[0.0] * rows, tokens=2)
        )
        slab.start = 2
        return slab

    def kept(self, slab: Slab, length: int) -> list[list[float]]:
        return slab.layers[0].keys[:, 0, :length, 0].tolist()

    def test_one_behind_the_other(self) -> None:
        slab = self.filled()
        keys, values = slab.layers[0].update(states(30, 40), states(5, 6))
        assert keys[:, 0, :, 0].tolist() == [[10, 11, 30], [20, 21, 40]]
        assert values[:, 0, :, 0].tolist() == [[0, 1, 5], [0, 1, 6]]
        assert slab.layers[0].get_seq_length() == 2
        assert slab.layers[0].get_mask_sizes(1) == (3, 0)

    def test_at_each_rows_own_slot(self) -> None:
        slab = self.filled()
        slab.slots, slab.row_index, slab.limit = torch.tensor([[1, 2], [2, 3]]), torch.arange(2)[:, None], 4
        keys, _ = slab.layers[0].update(states(30, 40, tokens=2), states(0, 0, tokens=2))
        assert keys[:, 0, :, 0].tolist() == [[10, 30, 31, 0], [20, 21, 40, 41]]

    def test_layers_of_one_shape_share_a_block(self) -> None:
        slab = Slab(2, 1, 4)
        for layer in slab.layers:
            layer.update(states(1), states(2))
        assert len(slab.blocks) == 1
        other = Slab(2, 1, 4)
        other.layers[0].update(states(1), states(2))
        other.layers[1].update(states(1).double(), states(2).double())
        assert [block.dtype for block in other.blocks] == [torch.float32, torch.float64]

    def test_prompts_shared_by_copies(self) -> None:
        slab = Slab(1, 4, 3)
        slab.stride = 2
        slab.layers[0].update(states(10, 20, tokens=2), states(0, 0, tokens=2))
        assert self.kept(slab, 2) == [[10, 11], [0, 0], [20, 21], [0, 0]]
        slab.spread(2, 2)
        assert self.kept(slab, 2) == [[10, 11], [10, 11], [20, 21], [20, 21]]

    def test_grow(self) -> None:
        slab = self.filled()
        slab.grow(3)
        assert slab.capacity == 4
        slab.grow(5)
        assert slab.capacity == 6
        keys, _ = slab.layers[0].update(states(30, 40, tokens=3), states(0, 0, tokens=3))
        assert keys[:, 0, :, 0].tolist() == [[10, 11, 30, 31, 32], [20, 21, 40, 41, 42]]

    def test_select(self) -> None:
        slab = self.filled(3)
        slab.select(torch.tensor([2, 0, 0]), 1, 2)
        assert self.kept(slab, 2) == [[10, 31], [20, 11], [30, 11]]
        slab = self.filled(3)
        slab.select(torch.tensor([2, 0]), 0, 2)
        assert (slab.rows, self.kept(slab, 2)) == (2, [[30, 31], [10, 11]])

    def test_adopt(self) -> None:
        small, large = self.filled(), Slab(1, 2, 8)
        large.adopt(small)
        assert self.kept(large, 3) == [[10, 11, 0], [20, 21, 0]]

    def test_move(self) -> None:
        slab = self.filled()
        slab.move(torch.tensor([1, 0]), 2)
        assert self.kept(slab, 3) == [[10, 11, 11], [20, 21, 20]]

    def test_export_shares_nothing(self) -> None:
        slab = self.filled()
        cache = slab.export(2)
        slab.layers[0].keys.zero_()
        assert type(cache) is transformers.DynamicCache
        assert cache.layers[0].keys[:, 0, :, 0].tolist() == [[10, 11], [20, 21]]


@pytest.mark.oldest
class TestEngines:
    def test_which_engine_and_why(self) -> None:
        window = {"max_new_tokens": 4}
        for name, flags, engine, why in (
            ("llama", {}, "slab", "graphs are for CUDA"),
            ("gpt2", {}, "slab", "graphs are for CUDA"),
            ("qwen2", {"num_beams": 3}, "slab", "graphs are for CUDA"),
            ("llama", {"use_cache": False}, "portable", ""),
            ("llama", {"past_key_values": transformers.DynamicCache()}, "portable", "cache of its own"),
            ("llama", {"cache_implementation": "static"}, "portable", "cache of its own"),
            ("llama", {"prefill_chunk_size": 4}, "portable", "in chunks"),
            ("gemma3", window, "portable", "sliding window"),
            ("mamba", {}, "portable", "cache of its own"),
            ("t5", {}, "portable", "encoder-decoder"),
            ("llava", {}, "portable", ""),
        ):
            plan = genmode.explain(tiny(name), **prompt(name, 2), **{"max_new_tokens": 4, **flags})
            assert plan.engine == engine, name
            assert why in plan.engine_why, plan.engine_why
            assert plan.rows == 2 * flags.get("num_beams", 1)

    @pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
    def test_engines_agree(self, name: str) -> None:
        inputs = prompt(name, 3)
        for flags in ({"num_beams": 3}, {"do_sample": True, "top_p": 0.8}, {"prompt_lookup_num_tokens": 3}):
            results = []
            for portable in ({}, {"prefill_chunk_size": 64}):
                torch.manual_seed(5)
                results.append(genmode.generate(tiny(name), **inputs, max_new_tokens=12, seed=3, **flags, **portable))
            assert torch.equal(*results), flags

    def test_the_slab_grows_with_long_results(self) -> None:
        """Capacity begins at 256 tokens behind the prompt."""
        inputs = {"input_ids": ids(2, 3), "attention_mask": torch.ones(2, 3).long()}
        model, flags = tiny("qwen2"), {"max_new_tokens": 300, "do_sample": False}
        stock = model.generate(**inputs, **flags)
        assert torch.equal(genmode.generate(model, **inputs, **flags), stock)
        assert torch.equal(genmode.generate(model, **inputs, **flags, prompt_lookup_num_tokens=5), stock)
