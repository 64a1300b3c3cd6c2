"""generate, stream, explain, attach and the mixin, and what calls them: streamers, pipelines, threads, hooks."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.registry import Registry, use
from genmode.testing.models import VOCAB, fresh, greedy, ids, prompt, tiny, tokenizer

LENGTH = 9
FLAGS: dict[str, Any] = {"do_sample": False, "max_new_tokens": LENGTH}
ONE = prompt("llama", 1)


class Recording(transformers.generation.BaseStreamer):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def put(self, value: Tensor) -> None:
        self.pieces.append(value.tolist())

    def end(self) -> None:
        self.pieces.append("end")


def forwards(model: Any) -> list[int]:
    """A list that grows with every forward of the model."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


def waiting(count: int, cancel: threading.Event, reached: threading.Event | None = None) -> tuple[Any, list[int]]:
    """A model whose forward number `count` says that it was reached and goes on when the call is cancelled."""
    model = fresh("llama")
    seen = forwards(model)

    def wait(*_: object) -> None:
        if len(seen) == count:
            if reached is not None:
                reached.set()
            assert cancel.wait(60)

    model.register_forward_pre_hook(wait)
    return model, seen


def words(tokens: Tensor) -> str:
    text: str = tokenizer().decode(tokens, skip_special_tokens=True)
    return text


@pytest.fixture
def stray_threads() -> Iterator[None]:
    """No thread of `stream` outlives a test."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "genmode-stream"]


@pytest.mark.usefixtures("stray_threads")
class TestStream:
    @pytest.mark.oldest
    @pytest.mark.parametrize("rows", [1, 3])
    def test_tokens(self, rows: int) -> None:
        pieces = list(genmode.stream(tiny("llama"), **prompt("llama", rows), **FLAGS))
        assert torch.equal(torch.stack(pieces, 1), greedy("llama", rows, LENGTH))

    def test_tokens_of_an_encoder_decoder_and_of_a_sampler(self) -> None:
        pieces = list(genmode.stream(tiny("bart"), **prompt("bart", 2), **FLAGS))
        assert torch.equal(torch.stack(pieces, 1), greedy("bart", 2, LENGTH))
        sampled = {"do_sample": True, "seed": 4, "max_new_tokens": LENGTH}
        pieces = list(genmode.stream(tiny("llama"), **ONE, **sampled))
        assert torch.equal(torch.stack(pieces, 1), genmode.generate(tiny("llama"), **ONE, **sampled)[:, 9:])

    @pytest.mark.parametrize(
        "flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"eos_token_id": [51]}], ids=str
    )
    def test_text(self, flags: dict[str, Any]) -> None:
        pieces = list(genmode.stream(tiny("llama"), **ONE, **FLAGS, tokenizer=tokenizer(), **flags))
        result = genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags)
        assert "".join(pieces) == words(result[0, 9:])
        assert len(pieces) > 1

    def test_tokens_come_while_they_are_decoded_and_leaving_cancels(self) -> None:
        cancel = threading.Event()
        model, seen = waiting(4, cancel)
        pieces = genmode.stream(model, **ONE, do_sample=False, max_new_tokens=200, cancel=cancel)
        first = [next(pieces), next(pieces)]
        assert not cancel.is_set()
        pieces.close()
        assert cancel.is_set()
        assert len(seen) <= 4
        assert torch.equal(torch.stack(first, 1), greedy("llama", 1, 2))

    def test_an_error_is_raised_where_it_is_iterated(self) -> None:
        with pytest.raises(genmode.ParameterError, match="did you mean"):
            next(genmode.stream(tiny("llama"), **ONE, temprature=0.5))
        with pytest.raises(genmode.DecodingError, match="no good"):
            list(genmode.stream(tiny("llama"), **ONE, **FLAGS, processors=[broken]))

    def test_cancelling_from_outside(self) -> None:
        cancel = threading.Event()
        model, _ = waiting(6, cancel)

        def read() -> None:
            for count, _ in enumerate(genmode.stream(model, **ONE, max_new_tokens=200, cancel=cancel)):
                if count == 2:
                    cancel.set()

        with pytest.raises(genmode.CancelledError) as caught:
            read()
        assert 9 + 3 <= caught.value.sequences.shape[1] <= 9 + 5


def broken(input_ids: Tensor, scores: Tensor) -> Tensor:
    raise ArithmeticError("no good")


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
        assert (plan.engine, plan.random) == ("slab", "torch's generator")
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


class TestNamingStrategies:
    def test_by_name_class_and_object(self) -> None:
        from genmode_strategies.beam_search import BeamSearch
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


class TestStreamers:
    @pytest.mark.parametrize("rows", [1, 3])
    @pytest.mark.parametrize("flags", [{}, {"do_sample": True, "top_k": 4}, {"eos_token_id": [51, 35, 65]}], ids=str)
    def test_what_transformers_puts(self, rows: int, flags: dict[str, Any]) -> None:
        pieces = []
        for generate in (transformers.LlamaForCausalLM.generate, genmode.generate):
            streamer = Recording()
            torch.manual_seed(1)
            generate(tiny("llama"), **prompt("llama", rows), **{**FLAGS, **flags}, streamer=streamer)
            pieces.append(streamer.pieces)
        assert pieces[0] == pieces[1]

    def test_an_encoder_decoder(self) -> None:
        pieces = []
        for generate in (transformers.BartForConditionalGeneration.generate, genmode.generate):
            streamer = Recording()
            generate(tiny("bart"), **prompt("bart", 1), **FLAGS, streamer=streamer)
            pieces.append(streamer.pieces)
        assert pieces[0] == pieces[1]

    @pytest.mark.parametrize(
        "flags", [{}, {"do_sample": True, "seed": 3}, {"eos_token_id": list(range(5, 95, 5))}], ids=str
    )
    @pytest.mark.parametrize("rows", [1, 2])
    def test_beams_put_what_can_no_longer_change(self, rows: int, flags: dict[str, Any]) -> None:
        """transformers refuses a streamer with beams."""
        inputs, streamer = prompt("llama", rows), Recording()
        flags = {**FLAGS, **flags, "num_beams": 3, "max_new_tokens": 20}
        result = genmode.generate(tiny("llama"), **inputs, **flags, streamer=streamer)
        assert streamer.pieces[0] == inputs["input_ids"].tolist()
        assert streamer.pieces[-1] == "end"
        assert torch.tensor(streamer.pieces[1:-1]).T.tolist() == result[:, 9:].tolist()

    def test_beams_stream_before_they_are_done(self) -> None:
        model, streamer = fresh("llama"), Recording()
        at: list[int] = []
        model.register_forward_pre_hook(lambda *_: at.append(len(streamer.pieces)))
        genmode.generate(model, **ONE, num_beams=2, max_new_tokens=40, streamer=streamer)
        assert max(at) > 2

    def test_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        streamer = transformers.TextStreamer(tokenizer(), skip_prompt=True)
        result = genmode.generate(tiny("llama"), **ONE, **FLAGS, streamer=streamer)
        assert capsys.readouterr().out.strip() == tokenizer().decode(result[0, 9:])

    @pytest.mark.parametrize("flags", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}], ids=str)
    def test_an_iterator_in_another_thread(self, flags: dict[str, Any]) -> None:
        streamer = transformers.TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=60)
        call = {**ONE, **FLAGS, **flags, "streamer": streamer}
        thread = threading.Thread(target=genmode.generate, args=(tiny("llama"),), kwargs=call)
        thread.start()
        text = "".join(streamer)
        thread.join()
        assert text == tokenizer().decode(genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags)[0, 9:])

    def test_an_asynchronous_iterator(self) -> None:
        async def read() -> str:
            streamer = transformers.AsyncTextIteratorStreamer(tokenizer(), skip_prompt=True)
            call = {**ONE, **FLAGS, "streamer": streamer}
            work = asyncio.get_running_loop().run_in_executor(None, lambda: genmode.generate(tiny("llama"), **call))
            pieces = [piece async for piece in streamer]
            await work
            return "".join(pieces)

        assert asyncio.run(read()) == tokenizer().decode(greedy("llama", 1, LENGTH)[0])

    def test_a_streamer_takes_one_result_of_an_input(self) -> None:
        with pytest.raises(genmode.ParameterError, match="num_return_sequences"):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, num_beams=3, num_return_sequences=2, streamer=Recording())


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
        with pytest.raises(genmode.ParameterError, match="at least one character"):
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
        self.seen.append(("begin", session.history.ids.shape[1]))

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


class TestModelsWithALoopOfTheirOwn:
    def test_run_it_untouched(self) -> None:
        model = OwnLoop(tiny("llama").config)
        ids = torch.tensor([[3, 4]])
        assert genmode.generate(model, ids, steps=5, anything=1) == (ids, 5, {"anything": 1})
        plan = genmode.explain(model, ids)
        assert (plan.engine, plan.why) == ("OwnLoop.generate", "OwnLoop brings a generate of its own")
