"""The session's contract: steps, drafts, what ends rows, and random numbers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import genmode
from genmode.testing.harness.models import BOS, VOCAB, greedy, prompt, tiny

from .session_support import choose, run


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
            names = ("rows", "num_inputs", "vocab_size", "eos_token_ids", "pad_token_id", "max_length",
                     "prompt_length", "model", "tokenizer", "assistant_model")  # fmt: skip
            told.update({name: getattr(session, name) for name in names})
            told["device"] = session.device.type
            for step in session.steps():
                assert (step.index, step.draft) == (session.history.tokens.shape[1] - session.prompt_length, None)
                assert step.logits.shape == (6, VOCAB)
                assert step.logits.dtype == torch.float32
                told["starts"] = session.history.starts.tolist()
                step.commit(choose(step))
            told["left"] = session.unfinished.tolist()

        run(play, beams=2, eos_token_id=[7, 8])
        assert told == {
            "rows": 6, "num_inputs": 3, "vocab_size": VOCAB, "eos_token_ids": [7, 8], "pad_token_id": 0,
            "max_length": 19, "prompt_length": 9, "model": tiny("llama"), "tokenizer": None, "assistant_model": None,
            "device": "cpu", "starts": [0, 0, 3, 3, 1, 1], "left": [True] * 6,
        }  # fmt: skip

    def test_the_encoders_input(self) -> None:
        def play(session: genmode.Session) -> None:
            assert session.prompt_length == 1
            assert session.history.tokens.tolist() == [[BOS]] * 3
            for step in session.steps():
                step.commit(choose(step))

        class Sees(genmode.LogitsProcessor):
            contract_version = 1

            def begin(self, context: genmode.Context) -> None:
                given = prompt("bart", 3)
                assert torch.equal(
                    context.encoder_input_ids, given["input_ids"].masked_fill(given["attention_mask"] == 0, -1)
                )
                assert (context.rows, context.num_inputs, context.prompt_length) == (3, 3, 1)
                assert context.processors == (self,)

            def process(self, scores: Tensor, history: genmode.History) -> Tensor:
                return scores

        run(play, "bart", processors=Sees())

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
        def look_behind_a_draft(session: genmode.Session) -> None:
            for step in session.steps():
                if step.draft is not None:
                    step.look(torch.ones(3, 2).long())
                step.commit(choose(step))
                session.draft(torch.ones(3, 2).long())

        def take_without_looking(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(choose(step), taken=torch.zeros(3).long())

        for play, message in (
            (look_behind_a_draft, "no draft is being verified"),
            (take_without_looking, r"follows look\(\)"),
        ):
            with pytest.raises(genmode.DecodingError, match=message):
                run(play, needs={"rollback"})

    def test_stop_when(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps(ending=False):
                step.commit(choose(step))
                session.stop_when((session.history.lengths - session.prompt_length).amax() == 4)

        assert torch.equal(run(play)[:, 9:], greedy("llama", 3, 4))

    def test_cancelled_between_two_steps(self) -> None:
        cancel, forwards = threading.Event(), 0

        def play(session: genmode.Session) -> None:
            nonlocal forwards
            ahead = session.draft_model(session.model)
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
            session.finish(session.history.tokens[::2, :12], scores=torch.tensor([1.0, 2.0]))

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
                    last = session.history.tokens[:, -1].tolist()
                    done = session.done_after(
                        torch.tensor([0, 0, 0, 2, 2]), torch.tensor([7, 9, last[0], last[2], last[0]])
                    )
                    assert done.tolist() == [True, False, True, True, False]
                if step.index == 9:
                    assert session.done_after(torch.tensor([0, 1]), torch.tensor([50, 51])).tolist() == [True, True]
                step.commit(torch.tensor([20, 21, 22]) + step.index)

        run(play, eos_token_id=7, criteria=ends_with_twins)

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
    def test_a_draft_scorer_repeats_no_numbers(self, seed: int | None) -> None:
        drawn: list[Tensor] = []

        def play(session: genmode.Session) -> None:
            for step in session.steps():
                for _ in range(3):
                    drawn.append(session.uniform())
                    with session.draft_scorer() as guess:
                        guess.take(guess.draw(guess.scores(step.scores.clone())))
                step.commit(choose(step))

        torch.manual_seed(1)
        run(play, seed=seed, max_new_tokens=2, do_sample=True)
        found = torch.cat(drawn)  # [2 steps * 3 * 3 rows]
        assert len(found.unique()) == (18 if seed is None else 6)  # one seed serves all rows
