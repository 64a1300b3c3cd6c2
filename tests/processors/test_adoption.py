"""What genmode takes over of transformers' own objects, and what it leaves alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
import transformers
from transformers.generation import logits_process, stopping_criteria

import genmode
from genmode.testing.harness.models import prompt, tiny, tokenizer

FLAGS = {"max_new_tokens": 14}
SEQUENCES = {"return_dict_in_generate": True, "output_scores": True}


def lines(**call: Any) -> tuple[list[str], tuple[str, ...]]:
    plan = genmode.explain(tiny("llama"), **prompt("llama", 2), **{**FLAGS, **call})
    return [one.name for one in plan.processors], plan.criteria


def both(rows: int = 2, **call: Any) -> tuple[Any, Any]:
    inputs = prompt("llama", rows)
    call = {**FLAGS, **call}
    return genmode.generate(tiny("llama"), **inputs, **call), tiny("llama").generate(**inputs, do_sample=False, **call)


class TestProcessors:
    def test_of_transformers_own_class(self) -> None:
        given = logits_process.RepetitionPenaltyLogitsProcessor(1.3)
        assert lines(logits_processor=[given])[0] == ["repetition_penalty"]
        assert lines(processors=[given])[0] == ["repetition_penalty"]

    def test_a_class_of_the_same_name_is_another(self) -> None:
        name = "RepetitionPenaltyLogitsProcessor"

        def call(self: Any, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return scores.roll(1, -1)

        own = type(name, (transformers.LogitsProcessor,), {"__call__": call, "penalty": 1.3})()
        derived = type(name, (logits_process.RepetitionPenaltyLogitsProcessor,), {"__call__": call})(1.3)
        for given in (own, derived):
            for place in ("logits_processor", "processors"):
                plan = genmode.explain(tiny("llama"), **prompt("llama", 2), **FLAGS, **{place: [given]})
                assert [(one.name, one.stage) for one in plan.processors] == [(name, "guidance")]
            ours, theirs = both(logits_processor=[given])
            assert torch.equal(ours, theirs)


class TestCriteria:
    @pytest.mark.parametrize("place", ["stopping_criteria", "criteria"])
    def test_which_are_native(self, place: str) -> None:
        text = tokenizer()
        strings = stopping_criteria.StopStringCriteria(text, ["c3"])
        assert lines(tokenizer=text, **{place: [strings]})[1][-1] == "stop_strings(stop_strings=('c3',))"
        assert lines(tokenizer=text, stop_strings="c3")[1][-1] == "stop_strings(stop_strings=('c3',))"
        assert lines(**{place: [strings]})[1][-1] == "StopStringCriteria"  # made for a tokenizer that is not known
        unsure = stopping_criteria.ConfidenceCriteria(0.1)
        assert lines(**{place: [unsure]})[1][-1] == "confidence(stop_confidence=0.1)"

    def test_a_class_of_the_same_name_is_another(self) -> None:
        def third(self: Any, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 12)

        for name in ("MaxLengthCriteria", "EosTokenCriteria", "MaxTimeCriteria", "StopStringCriteria"):
            own = type(name, (transformers.StoppingCriteria,), {"__call__": third})()
            result = genmode.generate(tiny("llama"), **prompt("llama", 2), **FLAGS, stopping_criteria=[own])
            assert result.shape[1] == 12
            assert lines(stopping_criteria=[own])[1][-1] == name

    @pytest.mark.parametrize("length", [13, 40])
    def test_a_length_that_the_caller_gives(self, length: int) -> None:
        ours, theirs = both(stopping_criteria=[stopping_criteria.MaxLengthCriteria(length)])
        assert torch.equal(ours, theirs)
        assert ours.shape[1] == length

    def test_ends_that_the_caller_gives(self) -> None:
        free = both()[1]
        chosen = [int(free[0, 12]), int(free[1, 14])]
        call = {"pad_token_id": 0, "eos_token_id": int(free[0, 10])}
        ours, theirs = both(stopping_criteria=[stopping_criteria.EosTokenCriteria(chosen)], **call)
        assert torch.equal(ours, theirs)
        assert ours.shape[1] < free.shape[1]

    def test_a_time_that_the_caller_gives(self) -> None:
        late = stopping_criteria.MaxTimeCriteria(0.5, initial_timestamp=time.time() - 1)
        assert both(stopping_criteria=[late])[0].shape[1] == 10  # the first token is decoded

    @pytest.mark.parametrize("rows", [1, 3])
    @pytest.mark.parametrize("limit", [0.3, 0.6, 0.9])
    def test_confidence(self, rows: int, limit: float) -> None:
        ours, theirs = both(rows, stopping_criteria=[stopping_criteria.ConfidenceCriteria(limit)], **SEQUENCES)
        assert torch.equal(ours.sequences, theirs.sequences)

    def test_strings_that_begin_in_the_prompt(self) -> None:
        text = tokenizer()
        inputs = text(["a b0 a1", "c3 d4 e5"], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        model = tiny("llama")
        free = model.generate(**inputs, do_sample=False, **FLAGS)
        first = text.decode(free[0, inputs["input_ids"].shape[1] :][:1])
        for stops in (["a1" + first], [" a1" + first, "e5"], ["a1"]):
            flags = {**FLAGS, "stop_strings": stops, "tokenizer": text, "pad_token_id": 0}
            ours = genmode.generate(model, **inputs, **flags)
            assert torch.equal(ours, model.generate(**inputs, do_sample=False, **flags))
