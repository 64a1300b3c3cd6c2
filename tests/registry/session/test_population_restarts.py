"""Rows that begin again, and rows that differ in length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import VOCAB, prompt, tiny

from .population_support import ENDING, FORKS, NAMES, RESTARTS, SAMPLED, sampled
from .session_support import choose, run


def text(session: genmode.Session) -> Tensor:
    """The tokens, 0 outside of the rows' texts."""
    return session.history.tokens * session.history.inside


class TestRestart:
    @pytest.mark.parametrize("flags", [{}, ENDING, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}])
    @pytest.mark.parametrize("name", NAMES)
    def test_greedy_says_the_same_again(self, name: str, flags: dict[str, Any]) -> None:
        def once(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())

        def play(session: genmode.Session) -> None:
            once(session)
            first, prompted = text(session), session.prompt_length
            session.restart((prompted + torch.tensor([0, 3, 5])).minimum(session.history.lengths))
            once(session)
            assert torch.equal(text(session), first)
            session.restart(torch.full((3,), prompted))
            for step in session.steps():
                step.commit(step.best())
                if step.index == 30:  # in the middle of a loop
                    session.restart(session.history.lengths - torch.tensor([1, 2, 0]))
            assert torch.equal(text(session), first)

        result = run(play, name, needs=RESTARTS, max_new_tokens=12, **flags)
        expected = tiny(name).generate(
            **prompt(name, 3), max_new_tokens=12, do_sample=False, **{"pad_token_id": 0, **flags}
        )
        assert torch.equal(result, expected)

    def test_what_is_recorded(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
            session.restart(session.history.lengths - torch.tensor([4, 1, 7]))
            for step in session.steps():
                step.commit(step.best())

        returned = {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True}
        ours = run(play, needs=RESTARTS, **returned)
        stock = tiny("llama").generate(**prompt("llama", 3), max_new_tokens=10, do_sample=False, **returned)
        assert torch.equal(ours.sequences, stock.sequences)
        assert len(ours.scores) == len(ours.hidden_states) == 10
        for mine, theirs in zip(ours.scores, stock.scores, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)

    def test_numbers_are_fresh_ones_and_the_rows_own(self) -> None:
        passes: list[Tensor] = []

        def play(session: genmode.Session) -> None:
            for _ in range(3):
                sampled(session)
                passes.append(text(session)[:, session.prompt_length :].clone())
                session.restart(session.prompt_length + 2 + 0 * session.history.lengths)
            sampled(session)

        inputs = prompt("llama", 3)
        together = run(play, inputs=inputs, needs=RESTARTS, seed=[4, 5, 6], **SAMPLED)
        assert all(torch.equal(one[:, :2], passes[0][:, :2]) for one in passes)
        assert len({tuple(one[0].tolist()) for one in passes}) == 3
        one = {key: value[1:2] for key, value in inputs.items()}
        assert torch.equal(together[1:2], run(play, inputs=one, needs=RESTARTS, seed=[5], **SAMPLED))

    def test_text_that_ended_among_rows_of_different_lengths_stays_once_they_are_level(self) -> None:
        def play(session: genmode.Session) -> None:
            start, steps = session.prompt_length, session.steps()

            def take(*tokens: int) -> None:
                next(steps).commit(torch.tensor(tokens))

            take(20, 20)
            take(20, 20)
            session.restart(torch.tensor([start + 1, start + 2]))
            take(21, 7)  # the second row ends, longer than the first
            take(21, 21)
            take(21, 21)  # both have one length, and the second takes padding
            assert session.history.level == start + 4
            session.restart(torch.tensor([start + 2, start + 3]))
            assert session.unfinished.tolist() == [True, False]
            session.restart(torch.tensor([start + 2, start + 2]))
            assert session.unfinished.tolist() == [True, True]

        run(play, rows=2, needs=RESTARTS, eos_token_id=7, pad_token_id=0)

    def test_text_that_has_ended_stays(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
            before = text(session)
            session.restart(session.history.lengths)
            assert not list(session.steps())
            session.restart(
                (session.history.lengths - 2).maximum(torch.tensor([0, 0, session.history.tokens.shape[1]]))
            )
            for step in session.steps():
                step.commit(step.best())
            assert torch.equal(text(session), before)

        result = run(play, needs=RESTARTS, max_new_tokens=12, **ENDING)
        assert any(token in ENDING["eos_token_id"] for token in result[2].tolist()[:-2])

    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            (torch.tensor([8, 9, 9]), "row 0 cannot begin again behind 8 tokens: it has 19, the first 9"),
            (torch.tensor([9, 9, 20]), "row 2 cannot begin again behind 20 tokens"),
            (torch.tensor([9, 9]), r"a length for each of 3 rows"),
        ],
    )
    def test_refused(self, lengths: Tensor, message: str) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
            session.restart(lengths)

        with pytest.raises(genmode.DecodingError, match=message) as caught:
            run(play, needs=RESTARTS)
        assert caught.value.sequences.shape == (3, 19)

    def test_a_model_that_cannot_go_back(self) -> None:
        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
            session.restart(session.history.lengths - 1)

        with pytest.raises(genmode.UnsupportedError, match="rollback"):
            run(play, "mamba", needs=FORKS)

    def test_streamed_text_stays(self) -> None:
        class Streamer:
            def __init__(self) -> None:
                self.tokens: list[int] = []

            def put(self, value: Tensor) -> None:
                self.tokens += value.flatten().tolist()

            def end(self) -> None:
                self.tokens.append(-1)

        def play(session: genmode.Session, settled: int) -> None:
            for step in session.steps():
                step.commit(step.best())
            session.settle(lambda: (session.history.tokens, session.prompt_length + settled))
            session.restart(torch.full((1,), session.prompt_length + 3))
            for step in session.steps():
                step.commit(step.best())

        streamer = Streamer()
        result = run(lambda session: play(session, 3), rows=1, needs=RESTARTS, streamer=streamer)
        assert streamer.tokens == [*result[0].tolist(), -1]
        with pytest.raises(genmode.DecodingError, match="have been streamed"):
            run(lambda session: play(session, 4), rows=1, needs=RESTARTS, streamer=Streamer())

    def test_a_second_loop_without_it(self) -> None:
        def play(session: genmode.Session) -> None:
            for _ in range(2):
                for step in session.steps():
                    step.commit(step.best())

        with pytest.raises(genmode.DecodingError, match=r"session\.restart\(lengths\)") as caught:
            run(play)
        assert caught.value.sequences.shape == (3, 19)

    def test_the_deadline_ends_later_loops_at_once(self) -> None:
        steps: list[int] = []

        def play(session: genmode.Session) -> None:
            for _ in range(3):
                count = 0
                for step in session.steps():
                    step.commit(step.best())
                    count += 1
                steps.append(count)
                session.restart(torch.full((3,), session.prompt_length))

        run(play, needs=RESTARTS, max_time=1e-9)
        assert steps == [1, 0, 0]


class TestUnevenRows:
    @pytest.mark.parametrize("name", NAMES)
    def test_reordered_behind_a_draft(self, name: str) -> None:
        """Rows of one input that took different numbers of tokens swap places: greedy text stays greedy text."""
        expected = tiny(name).generate(**prompt(name, 2), max_new_tokens=10, do_sample=False).repeat_interleave(2, 0)

        def play(session: genmode.Session) -> None:
            session.fork(torch.arange(2))
            for step in session.steps():
                if step.draft is None:
                    step.commit(step.best())
                else:
                    best = step.best(each=True)
                    counts = torch.tensor([1, 2, 3, 1]).clamp(max=best.shape[1])
                    order = torch.tensor([2, 3, 0, 1])  # rows 0 and 2 are of one input, and 1 and 3
                    step.commit(best.index_select(0, order), counts=counts, rows=order)
                known = expected[[0, 2, 0, 2]]
                at = session.history.lengths[:, None] + torch.arange(3)
                session.draft(known.gather(1, at.clamp(max=known.shape[1] - 1)))

        assert torch.equal(run(play, name, rows=2, needs={*RESTARTS, "reorder"}), expected)

    @pytest.mark.parametrize("name", ["llama", "gpt2"])
    def test_looks_and_endings(self, name: str) -> None:
        """After a restart at different lengths, looks say what the forwards behind them say."""

        def play(session: genmode.Session) -> None:
            for step in session.steps():
                step.commit(step.best())
            session.restart(session.history.lengths - torch.tensor([2, 5, 8]))
            found: Tensor | None = None
            for step in session.steps():
                if found is not None:
                    torch.testing.assert_close(step.logits, found, atol=1e-4, rtol=1e-4)
                tokens = torch.stack([step.best(), torch.full((3,), 17), torch.full((3,), 5)], dim=1)
                rows = torch.arange(3).repeat_interleave(3)
                ends = session.done_after(rows, tokens.flatten()).view(3, 3)
                last = session.history.lengths + 1 >= session.max_length
                assert torch.equal(ends, (tokens == 5) | last[:, None])
                look = step.look(tokens)
                taken = torch.tensor([step.index % 2, 0, 1])
                found = look.logits.gather(1, taken[:, None, None].expand(-1, 1, VOCAB))[:, 0]
                step.commit(tokens.gather(1, taken[:, None])[:, 0], taken=taken)
                found = found if bool(session.unfinished.all()) else None

        run(play, name, needs={*RESTARTS, "level"}, eos_token_id=5, pad_token_id=0)


def test_crossing_inputs() -> None:
    def play(session: genmode.Session) -> None:
        for step in session.steps():
            step.commit(choose(step), rows=torch.tensor([1, 0, 2]))

    with pytest.raises(genmode.DecodingError, match="a row of another input"):
        run(play, needs={"reorder"})
    with genmode.host_sync.late_host(), pytest.raises(genmode.DecodingError, match="a row of another input"):
        run(play, needs={"reorder"})
