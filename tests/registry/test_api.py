"""generate, attach and the mixin: strategies by every name, pipelines, hooks, threads."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import VOCAB, fresh, greedy, ids, prompt, tiny, tokenizer

from .api_support import FLAGS, LENGTH, ONE, broken, forwards


class TestNamingStrategies:
    def test_by_name_class_and_object(self) -> None:
        from genmode_strategies.beams.beam_search import BeamSearch
        from genmode_strategies.prompt_lookup import PromptLookup

        model = tiny("llama")
        stock = model.generate(**ONE, **FLAGS, num_beams=4)
        for named in ("beam_search", BeamSearch, BeamSearch()):
            assert torch.equal(genmode.generate(model, **ONE, max_new_tokens=LENGTH, strategy=named), stock)
        lookup = PromptLookup(prompt_lookup_num_tokens=2)
        assert torch.equal(genmode.generate(model, **ONE, **FLAGS, strategy=lookup)[:, 9:], greedy("llama", 1, LENGTH))
        assert (
            genmode.explain(model, **ONE, strategy=lookup, max_new_tokens=2).parameters["prompt_lookup_num_tokens"] == 2
        )

    def test_naming_a_strategy_implies_its_flags(self) -> None:
        model, flags = tiny("llama"), {"temperature": 0.7, "top_k": 6, "max_new_tokens": LENGTH}
        torch.manual_seed(2)
        ours = genmode.generate(model, **ONE, strategy="sample", **flags)
        torch.manual_seed(2)
        assert torch.equal(ours, model.generate(**ONE, do_sample=True, **flags))

    def test_a_registered_strategy(self) -> None:
        class Parrot(genmode.Strategy):
            contract_version = 1

            class Params(genmode.Params):
                word: int = 7

            def decode(self, session: genmode.Session, params: Any) -> None:
                for step in session.steps():
                    step.commit(torch.full((session.rows,), params.word))

        with use(Registry()) as registry:
            registry.register(Parrot)
            result = genmode.generate(tiny("llama"), **ONE, strategy="parrot", word=9, max_new_tokens=2)
            assert result[0, 9:].tolist() == [9, 9]
            assert genmode.explain(tiny("llama"), **ONE, strategy="parrot", max_new_tokens=2).origin


class TestAttach:
    def test_there_and_back(self) -> None:
        model = fresh("llama")
        stock = type(model).generate
        before = inspect.signature(model.generate)
        assert genmode.attach(model) is model
        assert list(inspect.signature(model.generate).parameters)[:2] == list(before.parameters)[:2]
        assert model.generate.func is not stock
        found = model.generate(**ONE, **FLAGS, prompt_lookup_num_tokens=3)
        assert torch.equal(found[:, 9:], greedy("llama", 1, LENGTH))
        genmode.attach(model)
        assert genmode.detach(model) is model
        assert genmode.detach(model).generate.__func__ is stock

    def test_arguments_in_transformers_order(self) -> None:
        model = fresh("llama")
        config = transformers.GenerationConfig(max_new_tokens=4, do_sample=False)
        odd = transformers.LogitsProcessorList(
            [lambda tokens, scores: scores.index_fill(1, torch.arange(0, VOCAB, 2), -9e9)]
        )
        stop = transformers.StoppingCriteriaList([lambda tokens, scores: torch.ones(len(tokens), dtype=torch.bool)])
        arguments = (ONE["input_ids"], config, odd, stop)
        stock = model.generate(*arguments)
        assert stock.shape == (1, 10)
        assert torch.equal(genmode.attach(model).generate(*arguments), stock)

    def test_custom_generate_stays_transformers_own(self) -> None:
        def mine(model: Any, input_ids: Tensor, *arguments: Any, **kwargs: Any) -> str:
            return "mine"

        model = genmode.attach(fresh("llama"))
        assert model.generate(**ONE, **FLAGS, custom_generate=mine) == "mine"
        assert torch.equal(model.generate(**ONE, **FLAGS, custom_generate=None)[:, 9:], greedy("llama", 1, LENGTH))

    def test_detach_leaves_others_generate(self) -> None:
        model = fresh("llama")
        model.generate = print
        assert genmode.detach(model).generate is print

    @pytest.mark.oldest
    def test_a_pipeline(self) -> None:
        model = fresh("llama")
        pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer())
        flags: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "return_full_text": False}
        stock = pipe(["a5 b6 c7", "d1"], batch_size=2, **flags)
        genmode.attach(model)
        seen = forwards(model)
        assert pipe(["a5 b6 c7", "d1"], batch_size=2, **flags) == stock
        assert pipe(["a5 b6 c7", "d1"], batch_size=2, prompt_lookup_num_tokens=4, **flags) == stock
        assert pipe("d1", seed=3, strategy="sample", max_new_tokens=6) == pipe(
            "d1", seed=3, strategy="sample", max_new_tokens=6
        )
        assert seen

    def test_the_mixin(self) -> None:
        class Mine(genmode.GenerationMixin, transformers.LlamaForCausalLM):  # type: ignore[misc]
            pass

        base = tiny("llama")
        model = Mine(base.config).eval()
        model.load_state_dict(base.state_dict())
        model.generation_config = base.generation_config
        stock = base.generate(**ONE, **FLAGS, num_beams=3)
        assert torch.equal(model.generate(**ONE, **FLAGS, num_beams=3), stock)
        assert torch.equal(genmode.generate(model, **ONE, **FLAGS, num_beams=3), stock)
        assert torch.equal(model.generate(ONE["input_ids"], None, **FLAGS)[:, 9:], greedy("llama", 1, LENGTH))
        torch.manual_seed(0)
        with pytest.raises(genmode.ParameterError):
            model.generate(**ONE, temprature=1.0)


class TestProcessors:
    def test_by_every_name(self) -> None:
        class Evens(genmode.LogitsProcessor):
            contract_version = 1

            class Params(genmode.Params):
                evens_by: float = 100.0

            def process(self, scores: Tensor, history: genmode.History) -> Tensor:
                scores[:, 1::2] -= self.params.evens_by
                return scores

        def evens(tokens: Tensor, scores: Tensor) -> Tensor:
            return scores.index_fill(1, torch.arange(1, VOCAB, 2), -9e9)

        model = tiny("llama")
        stock = model.generate(**ONE, **FLAGS, logits_processor=[evens])
        assert not (stock[:, 9:] % 2).any()
        for processors in (Evens, Evens(evens_by=99.0), [evens], evens):
            assert torch.equal(genmode.generate(model, **ONE, **FLAGS, processors=processors), stock)
        with use(Registry()) as registry:
            registry.register(Evens)
            assert torch.equal(genmode.generate(model, **ONE, **FLAGS, processors="evens"), stock)
            assert torch.equal(genmode.generate(model, **ONE, **FLAGS, evens_by=50.0), stock)
            assert torch.equal(genmode.generate(model, **ONE, **FLAGS)[:, 9:], greedy("llama", 1, LENGTH))

    def test_one_that_is_given_replaces_the_one_that_flags_build(self) -> None:
        flags = {"do_sample": True, "top_k": 50, "max_new_tokens": 5}
        plan = genmode.explain(tiny("llama"), **ONE, **flags, processors=transformers.TopKLogitsWarper(3))
        assert len(plan.processors) == 1
        narrow = genmode.generate(tiny("llama"), **ONE, **{**flags, "top_k": 3}, seed=1)
        given = genmode.generate(tiny("llama"), **ONE, **flags, processors=transformers.TopKLogitsWarper(3), seed=1)
        assert torch.equal(given, narrow)


class Watcher:
    """A hook plugin that observes and writes down what happens."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @genmode.hookimpl
    def genmode_session_begin(self, session: genmode.Session) -> None:
        self.seen.append(("begin", session.history.tokens.shape[1]))

    @genmode.hookimpl
    def genmode_session_step(self, session: genmode.Session, step: genmode.Step) -> None:
        assert step.committed
        self.seen.append((step.index, int(session.history.lengths[0])))

    @genmode.hookimpl
    def genmode_session_end(self, session: genmode.Session, error: BaseException | None) -> None:
        self.seen.append(("end", type(error).__name__ if error else None))


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    with use(Registry()) as registry:
        found = Watcher()
        registry.register(found, kind="hooks", name="watcher")
        yield found


class TestHooks:
    def test_observers(self, watcher: Watcher) -> None:
        genmode.generate(tiny("llama"), **ONE, do_sample=False, max_new_tokens=3)
        assert watcher.seen == [("begin", 9), (0, 10), (1, 11), (2, 12), ("end", None)]

    def test_observers_learn_of_errors(self, watcher: Watcher) -> None:
        with pytest.raises(genmode.DecodingError):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, processors=broken)
        assert watcher.seen == [("begin", 9), ("end", "DecodingError")]

    def test_contributions_and_answers(self) -> None:
        class Adds:
            @genmode.hookimpl
            def genmode_processors(self, call: Any) -> list[Any]:
                return [lambda tokens, scores: scores.index_fill(1, torch.tensor([19]), -9e9)]

            @genmode.hookimpl
            def genmode_criteria(self, call: Any) -> list[Any]:
                return [lambda tokens, scores: tokens.shape[1] >= 11]

            @genmode.hookimpl
            def genmode_resolve_strategy(self, flags: Any) -> str | None:
                return "prompt_lookup" if flags["top_k"] == 7 else None

        assert greedy("llama", 1, 1).tolist() == [[19]]
        with use(Registry()) as registry:
            registry.register(Adds(), kind="hooks", name="adds")
            result = genmode.generate(tiny("llama"), **ONE, **FLAGS)
            plan = genmode.explain(tiny("llama"), **ONE, max_new_tokens=2, top_k=7)
        assert result.shape == (1, 11)
        assert result[0, 9] != 19
        assert plan.strategy == "prompt_lookup"
        assert (
            plan.why
            == f"chosen by {plan.processors[0].origin}"
            == f"chosen by hook plugin 'adds' of this program ({__file__})"
        )


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_eight_threads_on_one_model(name: str) -> None:
    model = tiny(name)
    ways: list[dict[str, Any]] = [
        {"do_sample": False}, {"do_sample": True, "seed": 1, "top_p": 0.8}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3},
        {"do_sample": True, "seed": 2, "num_beams": 2}, {"do_sample": True, "seed": 3, "repetition_penalty": 1.3},
        {"num_beams": 2, "num_return_sequences": 2}, {"do_sample": False, "no_repeat_ngram_size": 2},
    ]  # fmt: skip

    def decode(place: int) -> list[Tensor]:
        inputs = prompt(name, 1 + place % 3, seed=place)
        return [genmode.generate(model, **inputs, **ways[(place + turn) % 8], max_new_tokens=8) for turn in range(3)]

    serial = [decode(place) for place in range(8)]
    found: dict[int, list[Tensor]] = {}
    start = threading.Barrier(8)

    def work(place: int) -> None:
        start.wait(60)
        found[place] = decode(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in range(8):
        for ours, wanted in zip(found[place], serial[place], strict=True):
            assert torch.equal(ours, wanted)


def test_parameters_keep_requiring_gradients() -> None:
    model = fresh("llama")
    genmode.generate(model, **ONE, **FLAGS)
    assert torch.is_grad_enabled()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    model(ids(1, 3)).logits.sum().backward()


def test_a_model_in_training_mode_stays_in_it() -> None:
    model = fresh("llama").train()
    genmode.generate(model, **ONE, **FLAGS)
    assert model.training


class OwnLoop(transformers.LlamaForCausalLM):
    """A model that decodes in a way of its own, as diffusion models do."""

    def generate(self, inputs: Any = None, steps: int = 3, **kwargs: Any) -> tuple[Any, int, dict[str, Any]]:
        return inputs, steps, kwargs


class OwnStrictLoop(transformers.LlamaForCausalLM):
    """One that refuses what it does not know, as Musicgen does."""

    def generate(self, inputs: Any = None, **kwargs: Any) -> Any:
        del inputs
        raise ValueError(f"not used by the model: {sorted(kwargs)}")


class OwnName(transformers.LlamaForCausalLM):
    """One that prepares the inputs under a name of its own, and decodes as transformers does, as SeamlessM4T does."""

    def generate(self, input_ids: Any = None, **kwargs: Any) -> Any:
        return super().generate(input_ids, **kwargs)


class TestModelsWithALoopOfTheirOwn:
    def test_run_it_untouched(self) -> None:
        model = OwnLoop(tiny("llama").config)
        ids = torch.tensor([[3, 4]])
        assert genmode.generate(model, ids, steps=5, anything=1) == (ids, 5, {"anything": 1})
        plan = genmode.explain(model, ids)
        assert (plan.engine, plan.why) == ("OwnLoop.generate", "OwnLoop brings a generate of its own")

    @pytest.mark.parametrize("cls", [OwnLoop, OwnStrictLoop])
    def test_take_no_strategy(self, cls: Any) -> None:
        model = cls(tiny("llama").config)
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(
                genmode.UnsupportedError, match=f"^{cls.__name__} brings a generate of its own, which dec"
            ):
                call(model, torch.tensor([[3, 4]]), strategy="greedy_search")

    def test_take_no_parameters_of_components(self) -> None:
        """Said only where the model refuses them: it may have a key by that name of its own."""
        strict, open_ = OwnStrictLoop(tiny("llama").config), OwnLoop(tiny("llama").config)
        message = r"^OwnStrictLoop brings a generate of its own.*mirostat_tau of processor 'mirostat'.*leave them out"
        with pytest.raises(genmode.UnsupportedError, match=message):
            genmode.generate(strict, torch.tensor([[3, 4]]), mirostat_tau=3.0, anything=1)
        with pytest.raises(ValueError, match=r"^not used by the model: \['anything'\]"):
            genmode.generate(strict, torch.tensor([[3, 4]]), anything=1)
        assert genmode.generate(open_, None, mirostat_tau=3.0) == (None, 3, {"mirostat_tau": 3.0})

    def test_that_end_in_that_of_transformers_take_one(self) -> None:
        model, flags = OwnName(tiny("llama").config), {"attention_mask": torch.ones(1, 2), "max_new_tokens": 3}
        tokens = torch.tensor([[3, 4]])
        wanted = model.generate(tokens, **flags, do_sample=False)
        assert torch.equal(genmode.generate(model, tokens, **flags, strategy="greedy_search"), wanted)
