"""Constrained beam search: banks by hand, transformers 4.49's tokens, and what is reported."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import VOCAB, prompt, tiny
from genmode_strategies.beams import constraint_states
from genmode_strategies.beams.constrained_beam_search import report, shares
from genmode_strategies.beams.constraints import (
    OrderedConstraint,
    PhrasalConstraint,
    TemplateConstraint,
    UnmetConstraintWarning,
)

from ..goldens import cases

MODE = "constrained_beam_search"
FLAGS: dict[str, Any] = {"num_beams": 4, "max_new_tokens": 12}


class TestShares:
    def test_the_best_of_every_bank_in_turn(self) -> None:
        bank = torch.tensor([[0.0, 0.0, 2.0, 2.0, 1.0]])
        scores = torch.tensor([[-1.0, -2.0, -9.0, -8.0, -5.0]])
        assert shares(bank, scores, 4, torch.arange(5)).tolist() == [[3, 4, 0, 2]]

    def test_what_may_not_be_picked(self) -> None:
        bank, scores = torch.tensor([[0.0, -1.0, 0.0]]), torch.tensor([[-5.0, -torch.inf, -6.0]])
        assert shares(bank, scores, 2, torch.arange(3)).tolist() == [[0, 2]]

    def test_a_bank_split_by_very_low_scores_counts_twice(self) -> None:
        bank, scores = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[-1.0, -300.0, -2.0]])
        assert shares(bank, scores, 3, torch.arange(3)).tolist() == [[0, 2, 1]]


@pytest.mark.oldest
@pytest.mark.filterwarnings("ignore::genmode_strategies.beams.constraints.UnmetConstraintWarning")
@pytest.mark.parametrize(("name", "key"), cases.LINES)
def test_the_tokens_of_transformers_4(name: str, key: str) -> None:
    for case in cases.cases(MODE, name, key):
        result = cases.decode(MODE, case)
        cases.compare(result, case)
        cases.compare_scores(result, case, cumulative=True)


@pytest.mark.filterwarnings("ignore::genmode_strategies.beams.constraints.UnmetConstraintWarning")
def test_without_a_table_the_tokens_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint_states, "MOST_ENTRIES", 0)
    for case in cases.cases(MODE, "llama", "three"):
        cases.compare(cases.decode(MODE, case), case)


class TestResults:
    @pytest.mark.parametrize("name", ["llama", "t5"])
    def test_words_in_order(self, name: str) -> None:
        words = OrderedConstraint([[61, 62], [63], [64]])
        result = genmode.generate(tiny(name), **prompt(name, 3), **FLAGS, constraints=[words])
        for row in result[:, -12:].tolist():
            assert contains(row, [[61, 62], [63], [64]])

    def test_a_template(self) -> None:
        template = TemplateConstraint([61, None, [63, 64]])
        result = genmode.generate(tiny("llama"), **prompt("llama", 3), **FLAGS, constraints=[template])
        for row in result[:, -12:].tolist():
            assert any(row[i] == 61 and row[i + 2 : i + 4] == [63, 64] for i in range(9))

    def test_both_flags_together(self) -> None:
        result = genmode.generate(
            tiny("llama"), **prompt("llama", 2), **FLAGS, force_words_ids=[[[71], [72]]],
            constraints=[PhrasalConstraint([73, 74])],
        )  # fmt: skip
        for row in result[:, -12:].tolist():
            assert {71, 72} & set(row)
            assert contains(row, [[73, 74]])

    def test_what_the_prompt_contains_counts_if_wanted(self) -> None:
        inputs = prompt("llama", 1)
        word = [int(inputs["input_ids"][0, -2])]
        free = genmode.generate(tiny("llama"), **inputs, **FLAGS)
        counted = genmode.generate(tiny("llama"), **inputs, **FLAGS, force_words_ids=[word])
        assert torch.equal(counted, free)
        again = genmode.generate(
            tiny("llama"), **inputs, **FLAGS, force_words_ids=[word], constraints_count_prompt=False
        )
        assert word[0] in again[0, -12:].tolist()

    def test_beam_indices_lead_back_to_the_scores(self) -> None:
        model = tiny("llama")
        flags = {**FLAGS, "force_words_ids": [[33]], "length_penalty": 0.0, "eos_token_id": 17}
        result = genmode.generate(
            model, **prompt("llama", 3), **flags, return_dict_in_generate=True, output_scores=True
        )
        transitions = model.compute_transition_scores(result.sequences, result.scores, result.beam_indices)
        torch.testing.assert_close(transitions.sum(1), result.sequences_scores, atol=1e-4, rtol=1e-4)

    def test_a_row_alone_is_a_row_in_a_batch(self) -> None:
        flags = {**FLAGS, "force_words_ids": [[33, 34], [35]], "eos_token_id": 17}
        inputs = prompt("llama", 3)
        together = genmode.generate(tiny("llama"), **inputs, **flags)
        for row in range(3):
            alone = genmode.generate(tiny("llama"), **{k: v[row : row + 1] for k, v in inputs.items()}, **flags)
            assert torch.equal(alone[0], together[row, : alone.shape[1]])


def contains(row: list[int], words: list[list[int]]) -> bool:
    """Whether the words stand in the row in this order."""
    place = 0
    for word in words:
        found = [i for i in range(place, len(row)) if row[i : i + len(word)] == word]
        if not found:
            return False
        place = found[0] + len(word)
    return True


class TestReported:
    def test_results_that_miss_a_constraint(self) -> None:
        words = [[81], [82], [83], [84]]
        with pytest.warns(UnmetConstraintWarning, match=r"of 4 results .* length limit"):
            genmode.generate(
                tiny("llama"), **prompt("llama", 1), num_beams=4, num_return_sequences=4, max_new_tokens=5,
                force_words_ids=words,
            )  # fmt: skip

    def test_nothing_where_all_are_met(self) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = genmode.generate(tiny("llama"), **prompt("llama", 1), **FLAGS, force_words_ids=[[33]])
            assert 33 in result[0, -12:].tolist()
            assert not told
            report(torch.tensor([True, True]))
            assert not told
            report(torch.tensor([True, False, False]))
        assert [one.category for one in told] == [UnmetConstraintWarning]
        assert "2 of 3 results do not meet all constraints (numbers 1, 2)" in str(told[0].message)


class TestBadInput:
    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            ({"num_beam_groups": 2, "diversity_penalty": 0.5}, "force_words_ids and num_beam_groups=2"),
            ({"do_sample": True}, "do_sample=True"),
            ({"num_beams": 1}, "num_beams"),
            ({"num_return_sequences": 5}, "num_return_sequences=5"),
            ({"force_words_ids": []}, "force_words_ids"),
            ({"force_words_ids": [5]}, "force_words_ids"),
            ({"force_words_ids": [[]]}, "force_words_ids"),
            ({"force_words_ids": [[[5, 6], [5]]]}, "beginning of another"),
            ({"force_words_ids": [["house"]]}, "force_words_ids"),
            ({"constraints": [[5]]}, "constraints"),
            ({"force_words_ids": [[VOCAB]]}, f"token {VOCAB}"),
            ({"force_words_ids": [list(range(10, 23))]}, "need 13 tokens, and .* leaves 12"),
            ({"force_words_ids": None, "strategy": MODE}, "needs force_words_ids or constraints"),
        ],
    )
    def test_contradictions(self, flags: dict[str, Any], told: str) -> None:
        with pytest.raises(genmode.ParameterError, match=told):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **{**FLAGS, "force_words_ids": [[5]], **flags})
