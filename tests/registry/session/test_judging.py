"""What components return is looked at before it is used: the form of scores and tokens, and that a token is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import genmode
from genmode import host_sync
from genmode.testing.harness.models import fresh, prompt, tiny

INPUTS = prompt("llama", 2)
PROMPT = INPUTS["input_ids"].shape[1]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False}, "sample": {"do_sample": True}, "seeded": {"do_sample": True, "seed": 1},
    "lookup": {"prompt_lookup_num_tokens": 3, "do_sample": False},
    "seeded lookup": {"prompt_lookup_num_tokens": 3, "do_sample": True, "seed": 1},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "scores returned": {"do_sample": True, "output_scores": True, "return_dict_in_generate": True},
    "beams": {"num_beams": 3}, "beam sample": {"num_beams": 2, "do_sample": True},
}  # fmt: skip


@pytest.fixture(params=["cpu", "late"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """On the CPU, and as on a device, from which the host learns late."""
    with nullcontext() if request.param == "cpu" else host_sync.late_host():
        yield request.param


def damaging(row: int, after: int, damage: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """A processor that damages the scores of one row once `after` tokens are decoded."""

    def damaged(tokens: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        if tokens.shape[1] >= PROMPT + after:
            damage(scores[row::2] if len(scores) == 2 else scores)
        return scores

    return damaged


@pytest.mark.usefixtures("place")
class TestNothingLeft:
    @pytest.mark.parametrize("way", [way for way in WAYS if "beam" not in way])
    def test_a_row(self, way: str) -> None:
        mask = damaging(1, 3, lambda scores: scores.fill_(-torch.inf))
        with pytest.raises(
            genmode.DecodingError, match=r"row 1 has no token left.*'damaged' \(from the caller"
        ) as caught:
            genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=9, processors=mask, **WAYS[way])
        assert caught.value.row == 1
        sequences = caught.value.sequences
        assert sequences is not None
        plain = genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3, **{**WAYS[way], "do_sample": False})
        if not WAYS[way].get("do_sample") and "return_dict_in_generate" not in WAYS[way]:
            assert torch.equal(sequences[:, : plain.shape[1]], plain)  # from a device the host learns one step late

    @pytest.mark.parametrize("way", ["beams", "beam sample"])
    def test_all_beams(self, way: str) -> None:
        mask = damaging(0, 3, lambda scores: scores.fill_(-torch.inf))
        with pytest.raises(genmode.DecodingError, match=r"no token left to choose for any beam.*'damaged'"):
            genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=9, processors=mask, **WAYS[way])

    def test_one_beam_of_several(self) -> None:
        def mask(tokens: Tensor, scores: Tensor) -> Tensor:
            dead = (tokens[:, -1] % 2 == 0)[:, None] & torch.tensor(tokens.shape[1] > PROMPT)
            return scores.masked_fill(dead, -torch.inf)

        result = genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=5, num_beams=4, processors=mask)
        assert bool((result[:, PROMPT:-1] % 2 == 1).all())

    def test_fewer_sequences_than_beams(self) -> None:
        call: dict[str, Any] = {"max_new_tokens": 1, "num_beams": 3, "do_sample": False}
        allowed = {"prefix_allowed_tokens_fn": lambda row, tokens: [50, 60]}
        two = genmode.generate(tiny("llama"), **INPUTS, **call, **allowed, num_return_sequences=2)
        assert sorted(two[:2, -1].tolist()) == sorted(two[2:, -1].tolist()) == [50, 60]
        three = genmode.generate(tiny("llama"), **INPUTS, **call, **allowed, num_return_sequences=3)
        theirs = tiny("llama").generate(**INPUTS, **call, **allowed, num_return_sequences=3)
        assert theirs[:, -1].tolist() == [50, 60, -1, 50, 60, -1]  # the third of each is a place that nothing took
        assert torch.equal(three, theirs.where(theirs >= 0, 0))

    def test_a_row_that_has_ended(self) -> None:
        model = fresh("llama")
        first = int(genmode.generate(model, **INPUTS, max_new_tokens=1, do_sample=False)[0, -1])
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = first, 0
        mask = damaging(0, 1, lambda scores: scores.fill_(-torch.inf))
        result = genmode.generate(model, **INPUTS, max_new_tokens=6, do_sample=False, processors=mask)
        assert result[0, PROMPT:].tolist() == [first, 0, 0, 0, 0, 0]

    def test_a_ban_and_an_allow_list(self) -> None:
        with pytest.raises(genmode.DecodingError, match="no token left"):
            genmode.generate(
                tiny("llama"), **INPUTS, max_new_tokens=3, suppress_tokens=[50, 60],
                prefix_allowed_tokens_fn=lambda row, tokens: [50, 60],
            )  # fmt: skip


def test_who_masked_what() -> None:
    with pytest.raises(genmode.DecodingError) as caught:
        genmode.generate(
            tiny("llama"), **INPUTS, max_new_tokens=3, suppress_tokens=[50, 60], repetition_penalty=1.1,
            prefix_allowed_tokens_fn=lambda row, tokens: [50, 60],
        )  # fmt: skip
    assert "'suppress_tokens'" in str(caught.value)
    assert "masked 2 of 100" in str(caught.value)
    assert "masked 98 of 100" in str(caught.value)
    assert "repetition_penalty" not in str(caught.value)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("way", WAYS)
def test_nan_of_a_processor(way: str) -> None:
    damage = damaging(1, 0, lambda scores: scores[:, 7].fill_(torch.nan))
    with pytest.raises(genmode.DecodingError, match=r"not numbers .NaN. in row .*'damaged'"):
        genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=4, processors=damage, **WAYS[way])


class TestForms:
    @pytest.mark.parametrize(
        "change",
        [lambda s: s[:1], lambda s: s[0], lambda s: s[:, :-1], lambda s: torch.cat([s, s], 1), lambda s: s.long(),
         lambda s: s > 0, lambda s: None, lambda s: s.tolist(), lambda s: s.to("meta")],
    )  # fmt: skip
    @pytest.mark.parametrize("way", ["greedy", "seeded", "lookup", "beams"])
    def test_scores_of_another_form(self, way: str, change: Callable[[Tensor], Any]) -> None:
        with pytest.raises(genmode.DecodingError, match=r"'<lambda>' .* failed in process: .*it returned") as caught:
            genmode.generate(
                tiny("llama"), **INPUTS, max_new_tokens=4, processors=lambda tokens, scores: change(scores), **WAYS[way]
            )
        assert torch.equal(caught.value.sequences[:, :PROMPT], INPUTS["input_ids"].repeat_interleave(
            len(caught.value.sequences) // 2, 0))  # fmt: skip

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_floats_are_converted(self, dtype: torch.dtype) -> None:
        def shifted(tokens: Tensor, scores: Tensor) -> Tensor:
            return torch.zeros_like(scores).index_fill(1, torch.tensor([9]), 1.0).to(dtype)

        out = genmode.generate(
            tiny("llama"), **INPUTS, max_new_tokens=2, do_sample=False, processors=shifted, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        assert bool((out.sequences[:, PROMPT:] == 9).all())
        assert out.scores[0].dtype == torch.float32

    @pytest.mark.parametrize(
        ("tokens", "said"),
        [(torch.zeros(7, dtype=torch.long), r"torch.int64 of shape \[7\]"), (torch.zeros(2), "torch.float32"),
         (torch.zeros(2, dtype=torch.int32), "torch.int32"), (torch.ones(2, dtype=torch.bool), "torch.bool"),
         (torch.zeros(2, 1, dtype=torch.long), r"shape \[2, 1\]"), ([1, 2], "list"), (None, "NoneType"),
         (torch.tensor([5, 100]), "token 100.*tokens 0 to 99"), (torch.tensor([-1, 5]), "token -1")],
    )  # fmt: skip
    def test_tokens_that_are_none(self, tokens: Any, said: str) -> None:
        class Odd(genmode.Strategy):
            contract_version = 1

            def decode(self, session: genmode.Session, params: genmode.Params) -> None:
                for step in session.steps():
                    step.commit(tokens)

        with pytest.raises(genmode.DecodingError, match=f"'odd' failed at step 0: ValueError: commit .*{said}"):
            genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3, strategy=Odd)

    def test_scores_that_a_strategy_sets(self) -> None:
        class Odd(genmode.Strategy):
            contract_version = 1

            def decode(self, session: genmode.Session, params: genmode.Params) -> None:
                for step in session.steps():
                    step.scores = step.scores[:1]
                    step.commit(step.best())

        with pytest.raises(genmode.DecodingError, match=r"ValueError: it returned torch.float32 of shape \[1, 100\]"):
            genmode.generate(tiny("llama"), **INPUTS, max_new_tokens=3, strategy=Odd)

    def test_a_choice_of_the_session_of_another_form(self) -> None:
        """What the session chose itself is not looked at again, unless it is of the form of a step with a draft."""

        class Wrong(genmode.Strategy):
            contract_version = 1

            def decode(self, session: Any, params: Any) -> None:
                for step in session.steps():
                    step.commit(step.best(each=True))

        with pytest.raises(genmode.DecodingError, match=r"commit takes a tensor \[rows\] of dtype long"):
            genmode.generate(tiny("llama"), **INPUTS, strategy=Wrong, max_new_tokens=3)
