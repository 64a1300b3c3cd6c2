"""Scorers: what they read of each row, that batches equal single texts, that nothing is scored twice, and bad ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode.testing.harness.models import prompt, tiny, tokenizer

from .population_support import ENDING, FORKS, SAMPLED
from .scorer_support import KINDS, classifier, letters
from .session_support import choose, run

Played = Callable[[genmode.Session], None]


def uneven(session: genmode.Session) -> None:
    """Eight rows of three inputs, those of one input anywhere, some of which have ended."""
    for step in session.steps():
        step.commit(step.sample())
        if step.index == 2:
            session.fork(torch.tensor([2, 0, 2, 1, 0, 2]))
        if step.index == 4:
            session.drop(torch.tensor([0]))
    assert session.inputs.tolist() == [1, 2, 2, 0, 2, 1, 0, 2]


def scored(given: Any, then: Played = uneven, rows: Any = None, **flags: Any) -> tuple[Tensor, list[list[int]]]:
    """Scores at the end of a call, and the ids of each row from the prompt to its end, padding left out."""
    found: list[Any] = []

    def play(session: genmode.Session) -> None:
        score = session.scorer(given)
        then(session)
        found.append(score(rows))
        history, ends = session.history, flags.get("eos_token_id") or []
        for ids, start in zip(history.tokens.tolist(), history.starts.tolist(), strict=True):
            decoded = ids[history.prompt :]
            end = next((i + 1 for i, token in enumerate(decoded) if token in ends), len(decoded))
            found.append(ids[start : history.prompt] + decoded[:end])

    run(play, needs=FORKS, **{"tokenizer": tokenizer(), "seed": 3, **SAMPLED, **flags})
    return found[0], found[1:]


@torch.no_grad()
def alone(model: Any, ids: list[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


class TestModels:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Bart"])
    def test_ids_of_uneven_rows_score_as_each_does_alone(self, kind: str) -> None:
        model = classifier(kind)
        found, texts = scored(model, **ENDING)
        assert len({len(text) for text in texts}) > 2
        assert found.dtype == torch.float32
        expected = torch.cat([alone(model, text) for text in texts])
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_text_is_read_with_a_tokenizer_of_its_own(self, kind: str) -> None:
        model = classifier(kind, 3)
        found, texts = scored(genmode.Scoring(model, tokenizer=letters(), label=1), **ENDING)
        read = [letters()(tokenizer().decode(one, skip_special_tokens=True)).input_ids for one in texts]
        assert {(one[0], one[-1]) for one in read} == {(1, 2)}
        expected = torch.stack([alone(model, one).log_softmax(-1)[1] for one in read])
        torch.testing.assert_close(found, expected)

    def test_without_a_padding_token_texts_are_read_one_by_one(self) -> None:
        model = classifier("Llama", pad_token_id=None)
        found, texts = scored(model, **ENDING)
        torch.testing.assert_close(found, torch.cat([alone(model, text) for text in texts]))

    def test_the_tokenizer_of_the_call_means_its_ids(self) -> None:
        model = classifier("Llama")
        assert torch.equal(scored(genmode.Scoring(model, tokenizer=tokenizer()))[0], scored(model)[0])

    @pytest.mark.parametrize(
        ("problem", "made"),
        [
            (None, lambda logits: logits.log_softmax(-1)[1]),
            ("multi_label_classification", lambda logits: logits[1].sigmoid().log()),
            ("regression", lambda logits: logits[1]),
        ],
    )
    def test_labels_by_name_and_number(self, problem: str | None, made: Callable[[Tensor], Tensor]) -> None:
        model = classifier("Llama", 2, problem_type=problem)
        found, texts = scored(genmode.Scoring(model, label="LABEL_1"))
        torch.testing.assert_close(found, torch.stack([made(alone(model, text)) for text in texts]))
        assert torch.equal(found, scored(genmode.Scoring(model, label=1))[0])

    def test_a_text_of_no_tokens(self) -> None:
        def play(session: genmode.Session) -> None:
            session.scorer(genmode.Scoring(classifier(), prompt=False))()

        with pytest.raises(genmode.DecodingError, match=r"a text of no tokens; have the prompt stand before it"):
            run(play)

    def test_a_text_too_long_for_the_model(self) -> None:
        with pytest.raises(genmode.DecodingError, match=r"GPT2.*failed on 8 texts of up to 79 tokens: IndexError"):
            scored(classifier("GPT2"), max_new_tokens=70)

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            (lambda: tiny("llama"), r"LlamaForCausalLM generates text .* AutoModelForSequenceClassification"),
            (lambda: classifier("Llama", 2), r"2 labels and is told none; .* one of LABEL_0, LABEL_1 or 0 to 1"),
            (lambda: genmode.Scoring(classifier("Llama", 2), label="good"), r"has no label 'good'"),
            (lambda: genmode.Scoring(classifier("Llama", 2), label=2), r"has no label 2"),
            (lambda: genmode.Scoring(classifier("Llama", 2), label=-1), r"has no label -1"),
            (lambda: classifier("Llama", 1, vocab_size=90), r"vocabulary of 90 tokens.* 100.*its own tokenizer"),
            (lambda: classifier("Llama", 1, hidden_size=8).train(), r"training mode.*call \.eval\(\)"),
            (lambda: genmode.Scoring(classifier(), reads_ids=True), r"reads_ids is for functions"),
            (lambda: genmode.Scoring(len, label=1), r"tokenizer and label are for models; len is a function"),
            (lambda: 3.5, r"3\.5 cannot score texts; give a function"),
            (lambda: None, r"None cannot score texts"),
        ],
    )
    def test_what_is_no_scorer_is_refused_before_the_model_runs(self, given: Callable[[], Any], error: str) -> None:
        def never(session: genmode.Session) -> None:
            raise AssertionError("the scorer should have been refused")

        with pytest.raises(genmode.ParameterError, match=error):
            scored(given(), never)

    def test_text_needs_the_tokenizer_of_the_call(self) -> None:
        with pytest.raises(genmode.ParameterError, match=r"needs tokenizer= in the call"):
            scored(lambda texts: [0.0] * len(texts), tokenizer=None)


class TestFunctions:
    def test_texts_begin_behind_the_padding_and_end_with_their_row(self) -> None:
        seen: list[str] = []

        def note(texts: list[str]) -> list[float]:
            seen.extend(texts)
            return [float(len(text)) for text in texts]

        for given, special in ((genmode.Scoring(note, special_tokens=True), False), (note, True)):
            seen.clear()
            found, texts = scored(given, **ENDING)
            read = [tokenizer().decode(one, skip_special_tokens=special) for one in texts]
            assert seen == list(dict.fromkeys(read))
            assert found.tolist() == [len(one) for one in read]

    @pytest.mark.parametrize("needs", [frozenset(), FORKS], ids=["rows", "population"])
    def test_ids_without_the_prompt(self, needs: Any) -> None:
        found: list[list[int]] = []

        def note(texts: list[Tensor]) -> Tensor:
            found.extend(text.tolist() for text in texts)
            return torch.tensor([len(text) for text in texts])

        def play(session: genmode.Session) -> None:
            score = session.scorer(genmode.Scoring(note, prompt=False, reads_ids=True))
            for step in session.steps():
                step.commit(choose(step))
            assert score().tolist() == [len(one) for one in found]

        greedy = tiny("llama").generate(**prompt("llama", 3), do_sample=False, max_new_tokens=10)[:, 9:].tolist()
        ends = [greedy[0][3], greedy[1][6]]
        run(play, needs=needs, eos_token_id=ends, pad_token_id=ends[0])  # padding is a token that ends rows
        cut = [next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in greedy]
        assert found == [row[:count] for row, count in zip(greedy, cut, strict=True)]
        assert min(cut) < 10

    def test_rows_that_a_criterion_ended_have_no_padding(self) -> None:
        found: list[int] = []

        def note(texts: list[Tensor]) -> list[int]:
            found.extend(map(len, texts))
            return [0] * len(texts)

        for needs in ((), FORKS):

            def play(session: genmode.Session) -> None:
                score = session.scorer(genmode.Scoring(note, prompt=False, reads_ids=True))
                for step in session.steps():
                    step.commit(choose(step))
                score()

            run(play, needs=needs, criteria="row_limits", row_max_new_tokens=[2, 5, 8], pad_token_id=0)
        assert found == [2, 5, 8] * 2

    def test_chosen_rows_and_no_text_twice(self) -> None:
        asked: list[list[str]] = []

        def note(texts: list[str]) -> list[float]:
            asked.append(texts)
            return [float(sum(map(len, asked))) + place for place, _ in enumerate(texts)]

        def play(session: genmode.Session) -> None:
            score = session.scorer(note)
            for step in session.steps():
                step.commit(step.best())
                if step.index == 1:
                    first = score(torch.tensor([2, 0, 2]))
                    assert first[0] == first[2] != first[1]
                    session.fork(torch.tensor([2, 0]))
                    assert torch.equal(
                        score(torch.tensor([4, 3])), first[[1, 0]]
                    )  # forks have the text of their parents
                    assert len(score()) == 5
                    assert len(score(torch.tensor([], dtype=torch.long))) == 0
                    break

        run(play, needs=FORKS, tokenizer=tokenizer())
        assert [len(texts) for texts in asked] == [2, 1]

    @pytest.mark.parametrize("rows", [torch.tensor([3]), torch.tensor([-1]), torch.tensor([True, False, True])])
    def test_rows_that_there_are_not(self, rows: Tensor) -> None:
        def play(session: genmode.Session) -> None:
            session.scorer(lambda texts: [0.0] * len(texts))(rows)

        with pytest.raises(genmode.DecodingError, match=r"ValueError: a scorer (was asked for|takes)"):
            run(play, tokenizer=tokenizer())

    @pytest.mark.parametrize(
        ("returned", "error"),
        [
            (
                lambda n: [0.5] * (n + 1),
                r"returned torch\.float32 of shape \[4\] on cpu; return a number for each of the 3",
            ),
            (lambda n: torch.zeros(n, 1), r"of shape \[3, 1\]"),
            (lambda n: torch.zeros(n, device="meta"), r"on meta; return"),
            (lambda n: torch.zeros(n, dtype=torch.complex64), r"complex64"),
            (lambda n: [0.5, float("nan"), 1.0], r"returned nan for row 1; return a number, or minus infinity"),
            (lambda n: [0.5, 1.0, 1e300], r"returned inf for row 2"),
            (lambda n: None, r"returned NoneType None; return a number"),
            (lambda n: ["good"] * n, r"returned list \['good', 'good', 'good'\]"),
            (lambda n: [{"label": "good", "score": 0.5}] * n, r"returned list \[\{'label': 'good'"),
            (lambda n: 1 / 0, r"<lambda> failed on 3 texts of up to \d+ characters: ZeroDivisionError"),
        ],
    )
    def test_bad_answers_are_named_and_what_was_decoded_is_kept(self, returned: Any, error: str) -> None:
        def play(session: genmode.Session) -> None:
            score = session.scorer(lambda texts: returned(len(texts)))
            for step in session.steps():
                step.commit(step.best())
                if step.index == 3:
                    score()

        with pytest.raises(genmode.DecodingError, match=error) as raised:
            run(play, tokenizer=tokenizer())
        assert raised.value.step == 3
        assert raised.value.sequences is not None
        assert raised.value.sequences.shape == (3, 13)

    def test_minus_infinity_and_what_converts_to_numbers(self) -> None:
        answers = [[True, False, -float("inf")], torch.tensor([1, 0, -9], dtype=torch.int8), [torch.tensor(0.5)] * 3]
        for answer in answers:

            def play(session: genmode.Session, answer: Any = answer) -> None:
                found = session.scorer(lambda texts: answer)()
                assert found.dtype == torch.float32
                assert found.tolist() == [float(one) for one in answer]

            run(play, tokenizer=tokenizer())
