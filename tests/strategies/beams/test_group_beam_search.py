"""Group beam search: penalties by hand, transformers 4.49's tokens, sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genmode
from genmode.testing.harness.models import prompt, tiny
from genmode_strategies.beams.group_beam_search import Diversity, GroupRules

from ..goldens import cases

MODE = "group_beam_search"
FLAGS: dict[str, Any] = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "max_new_tokens": 10}


def rules(penalty: float, records: bool) -> GroupRules:
    return GroupRules(1, 2, penalty, 0, records)


@pytest.mark.parametrize("records", [False, True])
class TestDiversity:
    def test_each_beam_of_an_earlier_group_takes_off_the_penalty(self, records: bool) -> None:
        logits = torch.zeros(3, 2)
        groups = Diversity(lambda values: values, logits.log_softmax(-1), rules(0.5, records), torch.zeros(1, 3, 1))
        plain = -torch.tensor(2.0).log()
        torch.testing.assert_close(groups.scores(0), plain.expand(1, 1, 2))
        groups.count(torch.tensor([[1]]))
        torch.testing.assert_close(groups.scores(1), torch.stack([plain, plain - 0.5]).view(1, 1, 2))
        groups.count(torch.tensor([[1]]))
        torch.testing.assert_close(groups.scores(2), torch.stack([plain, plain - 1.0]).view(1, 1, 2))

    def test_inputs_do_not_see_each_other(self, records: bool) -> None:
        plain = torch.zeros(4, 3).log_softmax(-1)
        groups = Diversity(lambda values: values, plain, rules(1.0, records), torch.zeros(2, 2, 1))
        groups.scores(0)
        groups.count(torch.tensor([[0], [2]]))
        lower = groups.scores(1) - groups.plain[0, 0]
        assert lower[:, 0].round().tolist() == [[-1, 0, 0], [0, 0, -1]]

    def test_processors_come_behind_the_penalty(self, records: bool) -> None:
        plain = torch.zeros(2, 2).log_softmax(-1)
        groups = Diversity(lambda values: 2 * values, plain, rules(0.5, records), torch.zeros(1, 2, 1))
        first = groups.scores(0)
        groups.count(torch.tensor([[0]]))
        torch.testing.assert_close(groups.scores(1) - first, torch.tensor([[[-1.0, 0.0]]]))


@pytest.mark.oldest
@pytest.mark.parametrize(("name", "key"), cases.LINES)
def test_the_tokens_of_transformers_4(name: str, key: str) -> None:
    for case in cases.cases(MODE, name, key):
        result = cases.decode(MODE, case)
        cases.compare(result, case)
        cases.compare_scores(result, case)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_beam_indices_lead_back_to_the_scores(name: str) -> None:
    model = tiny(name)
    flags = {**FLAGS, "num_return_sequences": 4, "length_penalty": 0.0, "eos_token_id": 17}
    result = genmode.generate(model, **prompt(name, 3), **flags, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(result.sequences, genmode.generate(model, **prompt(name, 3), **flags))
    transitions = model.compute_transition_scores(result.sequences, result.scores, result.beam_indices)
    torch.testing.assert_close(transitions.sum(1), result.sequences_scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_first_group_is_a_beam_search(groups: int) -> None:
    inputs, size = prompt("llama", 3), 4 // groups
    if size == 1:
        plain = genmode.generate(tiny("llama"), **inputs, max_new_tokens=10, do_sample=False)
    else:
        plain = genmode.generate(tiny("llama"), **inputs, max_new_tokens=10, num_beams=size)
    flags = {**FLAGS, "num_beam_groups": groups, "num_return_sequences": 4}
    ours = genmode.generate(tiny("llama"), **inputs, **flags, strategy=MODE).view(3, 4, -1)
    for row in range(3):
        assert any(torch.equal(one, plain[row]) for one in ours[row])


def test_a_row_alone_is_a_row_in_a_batch() -> None:
    flags = {**FLAGS, "num_beams": 6, "num_beam_groups": 3, "num_return_sequences": 6, "eos_token_id": 17}
    inputs = prompt("llama", 3)
    together = genmode.generate(tiny("llama"), **inputs, **flags).view(3, 6, -1)
    for row in range(3):
        alone = genmode.generate(tiny("llama"), **{k: v[row : row + 1] for k, v in inputs.items()}, **flags)
        assert torch.equal(alone, together[row, :, : alone.shape[1]])


def test_groups_differ_more_under_a_penalty() -> None:
    inputs = prompt("llama", 1)
    flags = {**FLAGS, "num_beams": 4, "num_beam_groups": 4, "num_return_sequences": 4}
    apart = genmode.generate(tiny("llama"), **inputs, **{**flags, "diversity_penalty": 100.0})
    assert len(apart[:, inputs["input_ids"].shape[1]].unique()) == 4


def test_sampled_groups_draw_from_the_model() -> None:
    """Each group of one beam draws two candidates and keeps the more probable; chi-square, error rate 1e-4."""
    temperature, trials = 2.0, 600
    inputs = {key: value.expand(trials, -1) for key, value in prompt("llama", 1).items()}
    torch.manual_seed(11)
    drawn = genmode.generate(
        tiny("llama"), **inputs, do_sample=True, num_beams=2, num_beam_groups=2, diversity_penalty=0.0,
        num_return_sequences=2, max_new_tokens=1, temperature=temperature, top_k=6,
    )[:, -1]  # fmt: skip
    with torch.no_grad():
        log_p = tiny("llama")(**prompt("llama", 1)).logits[0, -1].log_softmax(-1) / temperature
    top, names = log_p.topk(6)
    p = top.softmax(-1).double()
    first, second = p[:, None] * p / (1 - p[:, None]), p * p[:, None] / (1 - p)  # drawn in either order
    pair = (first + second).triu(1)  # [better, worse]
    expected = pair.sum(1)[:-1] * 2 * trials  # the least probable of six is never the better of two
    found = torch.stack([(drawn == name).sum() for name in names[:-1]]).double()
    assert int(found.sum()) == 2 * trials
    statistic = float(((found - expected) ** 2 / expected).sum())
    assert statistic < 23.5  # the chi-square distribution of 4 degrees of freedom exceeds 23.5 once in 10,000


def test_it_streams_what_can_no_longer_change() -> None:
    inputs = prompt("llama", 1)
    flags = {**FLAGS, "eos_token_id": 17}
    pieces = [int(piece) for piece in genmode.stream(tiny("llama"), **inputs, **flags)]
    assert pieces == genmode.generate(tiny("llama"), **inputs, **flags)[0, inputs["input_ids"].shape[1] :].tolist()


class TestBadInput:
    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            ({"num_beam_groups": 3}, r"num_beams=4 .* num_beam_groups=3 .* may be 2, 4"),
            ({"diversity_penalty": 0.0}, "diversity_penalty=0.0"),
            ({"diversity_penalty": -1.0}, "diversity_penalty"),
            ({"num_return_sequences": 5}, "num_return_sequences=5"),
            ({"force_words_ids": [[5]]}, "force_words_ids and num_beam_groups=2"),
            ({"force_words_ids": [[5]], "strategy": MODE}, "num_beam_groups=2 and force_words_ids"),
            ({"early_stopping": "soon"}, "early_stopping"),
        ],
    )
    def test_contradictions(self, flags: dict[str, Any], told: str) -> None:
        with pytest.raises(genmode.ParameterError, match=told):
            genmode.generate(tiny("llama"), **prompt("llama", 1), **{**FLAGS, **flags})
