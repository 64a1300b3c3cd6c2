"""explain: what a call would run, and why."""

from __future__ import annotations

import json
from typing import Any

import pytest

import genmode
from genmode.testing.harness.models import fresh, prompt, tiny, tokenizer

from .api_support import FLAGS, ONE, broken, forwards


class TestExplain:
    def test_the_plan(self) -> None:
        model = fresh("llama")
        seen = forwards(model)
        plan = genmode.explain(
            model, **prompt("llama", 2), do_sample=True, temperature=0.7, top_k=5, top_p=0.9, max_new_tokens=4,
            eos_token_id=[7, 8], num_return_sequences=3, processors=[broken], stop_strings="c3", tokenizer=tokenizer(),
            max_time=5.0,
        )  # fmt: skip
        assert seen == []
        assert (plan.strategy, plan.origin, plan.rows) == ("sample", f"genmode {genmode.__version__}", 6)
        assert "do_sample=True" in plan.why
        assert (plan.engine, plan.random) == ("static", "torch's generator")
        assert [part.stage for part in plan.processors] == ["guidance", "temperature", "truncation", "truncation"]
        assert plan.processors[0].origin == "the caller"
        assert "broken" in plan.processors[0].parameters
        assert plan.criteria[:3] == ("max_length(13)", "eos([7, 8])", "max_time(5.0 s)")
        assert "stop" in plan.criteria[3].lower()

    def test_the_plan_as_text_and_as_data(self) -> None:
        plan = genmode.explain(tiny("llama"), **ONE, prompt_lookup_num_tokens=4, **FLAGS)
        data = json.loads(json.dumps(plan.to_dict()))
        assert data["parameters"] == {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 2, "do_sample": False}
        assert data["strategy"] == "prompt_lookup"
        assert "prompt_lookup_num_tokens=4" in str(plan)
        assert str(plan).splitlines()[0].startswith("strategy    prompt_lookup (genmode")

    def test_why_a_strategy_was_chosen(self) -> None:
        def why(**flags: Any) -> tuple[str, str]:
            plan = genmode.explain(tiny("llama"), **ONE, max_new_tokens=4, **flags)
            return plan.strategy, plan.why

        assert why() == ("greedy_search", "transformers' mode without flags")
        assert why(num_beams=2) == ("beam_search", "transformers' mode for num_beams=2")
        assert why(num_beams=2, do_sample=True)[0] == "beam_sample"
        assert why(strategy="sample") == ("sample", "named by the call")
        config = genmode.GenerationConfig(strategy="beam_search", num_beams=3)
        assert why(generation_config=config)[0] == "beam_search"

    def test_it_raises_what_generate_raises(self) -> None:
        for flags in ({"strategy": "sampel"}, {"top_q": 1}, {"num_beams": 2, "num_return_sequences": 3}):
            errors = []
            for call in (genmode.explain, genmode.generate):
                with pytest.raises(genmode.GenmodeError) as caught:
                    call(tiny("llama"), **ONE, **flags)
                errors.append((type(caught.value), str(caught.value)))
            assert errors[0] == errors[1]

    def test_an_encoder_decoder(self) -> None:
        assert genmode.explain(tiny("bart"), **prompt("bart", 2), num_beams=2, max_new_tokens=3).rows == 4
