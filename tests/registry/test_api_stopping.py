"""What stops a call: strings, time, criteria, and a caller in another thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import greedy, prompt, tiny, tokenizer

from .api_support import FLAGS, LENGTH, ONE, waiting, words


class TestStopping:
    @pytest.mark.oldest
    @pytest.mark.parametrize("flags", [{}, {"num_beams": 3}, {"do_sample": True}], ids=str)
    def test_stop_strings(self, flags: dict[str, Any]) -> None:
        model, inputs = tiny("llama"), prompt("llama", 3)
        for strings in ("c0", ["7 d2", "9 d"], ["never said"]):
            results = []
            for generate in (transformers.LlamaForCausalLM.generate, genmode.generate):
                torch.manual_seed(0)
                call = {**inputs, **FLAGS, **flags, "stop_strings": strings, "tokenizer": tokenizer()}
                results.append(generate(model, **call))
            assert torch.equal(*results), strings

    def test_stop_strings_do_stop(self) -> None:
        said = greedy("llama", 1, LENGTH)[0]
        stop = words(said[:4])[-4:]
        assert [stop in words(said[:count]) for count in range(1, 5)] == [False, False, False, True]
        flags = {**FLAGS, "stop_strings": stop, "tokenizer": tokenizer()}
        for extra in ({}, {"prompt_lookup_num_tokens": 4}):
            assert genmode.generate(tiny("llama"), **ONE, **flags, **extra).shape == (1, 13)

    def test_stop_strings_need_the_tokenizer(self) -> None:
        with pytest.raises(genmode.ParameterError, match="tokenizer="):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, stop_strings="a")
        with pytest.raises(genmode.ParameterError, match="at least 1 character"):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, stop_strings=[""], tokenizer=tokenizer())

    @pytest.mark.parametrize("flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=str)
    def test_no_time_left_gives_one_token(self, flags: dict[str, Any]) -> None:
        stock = {key: value for key, value in flags.items() if key == "num_beams"}
        result = genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags, max_time=1e-9)
        assert torch.equal(result, tiny("llama").generate(**ONE, **FLAGS, **stock, max_time=1e-9))
        assert result.shape == (1, 10)

    def test_time_enough_changes_nothing(self) -> None:
        assert torch.equal(
            genmode.generate(tiny("llama"), **ONE, **FLAGS, max_time=600.0)[:, 9:], greedy("llama", 1, LENGTH)
        )

    @pytest.mark.parametrize(
        "flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"do_sample": True}], ids=str
    )
    def test_cancelling_from_another_thread(self, flags: dict[str, Any]) -> None:
        cancel, reached = threading.Event(), threading.Event()
        model, seen = waiting(4, cancel, reached)

        def press() -> None:
            reached.wait(60)
            cancel.set()

        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(genmode.CancelledError, match="cancelled") as caught:
            genmode.generate(model, **ONE, max_new_tokens=230, cancel=cancel, **flags)
        thread.join()
        assert torch.equal(caught.value.sequences[:1, :9], ONE["input_ids"])
        assert caught.value.sequences.shape[1] >= 12
        assert caught.value.step == 3
        assert len(seen) == 4
        assert torch.equal(genmode.generate(model, **ONE, **FLAGS)[:, 9:], greedy("llama", 1, LENGTH))

    def test_cancelled_before_it_begins(self) -> None:
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(genmode.CancelledError) as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, cancel=cancel)
        assert torch.equal(caught.value.sequences, ONE["input_ids"])

    def test_criteria_by_every_name(self) -> None:
        class Third(genmode.StoppingCriterion):
            contract_version = 1

            class Params(genmode.Params):
                third_after: int = 3

            def check(self, history: genmode.History) -> Tensor:
                return history.lengths - history.prompt >= self.params.third_after

        def third(tokens: Tensor, scores: Any) -> bool:
            return tokens.shape[1] >= 12

        model = tiny("llama")
        for criteria in (Third, Third(third_after=3), [third], [Third, lambda tokens, scores: tokens.shape[1] > 30]):
            assert genmode.generate(model, **ONE, **FLAGS, criteria=criteria).shape == (1, 12)
        with use(Registry()) as registry:
            registry.register(Third)
            assert genmode.generate(model, **ONE, **FLAGS, criteria="third").shape == (1, 12)
            assert genmode.generate(model, **ONE, **FLAGS, third_after=4).shape == (1, 13)
