"""What a user can get wrong: a clear error or a documented result, and everything still works afterwards."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.registry import Registry, use
from genmode.testing.models import BOS, PAD, fresh, greedy, ids, prompt, tiny, tokenizer

ONE = prompt("llama", 1)
FLAGS: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8}


@pytest.fixture(autouse=True)
def _all_is_as_before() -> Iterator[None]:
    """The shared model, its configs and torch's switches are what they were, and decode what they did."""
    model = tiny("llama")
    kept = copy.deepcopy((vars(model.generation_config), model.config.to_dict()))
    torch.manual_seed(5)
    yield
    assert (vars(model.generation_config), model.config.to_dict()) == kept
    assert torch.is_grad_enabled()
    assert "generate" not in vars(model)
    torch.manual_seed(6)
    ours = genmode.generate(model, **ONE, do_sample=True, max_new_tokens=4)
    torch.manual_seed(6)
    assert torch.equal(ours, model.generate(**ONE, do_sample=True, max_new_tokens=4))


class TestNames:
    @pytest.mark.parametrize(
        ("flags", "error", "message"),
        [
            ({"strategy": "gready_search"}, genmode.UnknownComponentError, "no strategy .* mean 'greedy_search'"),
            ({"processors": "top_kk"}, genmode.UnknownComponentError, "no processor .* mean 'top_k'"),
            ({"processors": ["nothing_like_it"]}, genmode.UnknownComponentError, "genmode list"),
            ({"criteria": "qqq"}, genmode.UnknownComponentError, "no criterion is named 'qqq'"),
            ({"temprature": 1.0}, genmode.ParameterError, "'temprature' .did you mean 'temperature'"),
            ({"promt_lookup_num_tokens": 2}, genmode.ParameterError, "mean 'prompt_lookup_num_tokens'"),
            ({"pixel_values": torch.ones(1)}, genmode.ParameterError, "unknown argument 'pixel_values'"),
            ({"strategy": 3}, genmode.ParameterError, "strategy=3: give a name"),
            ({"strategy": str}, genmode.ParameterError, "give a name, a Strategy class"),
            ({"processors": 3}, genmode.ParameterError, "3 is no processor"),
            ({"criteria": 3}, genmode.ParameterError, "3 is no criterion"),
            ({"strategy": "sample", "do_sample": False}, genmode.ParameterError, "'sample' needs do_sample=True"),
            ({"strategy": "prompt_lookup", "num_beams": 3}, genmode.ParameterError, "needs num_beams=1"),
        ],
        ids=str,
    )
    def test_unknown_or_contradicting(self, flags: dict[str, Any], error: type[Exception], message: str) -> None:
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(error, match=message):
                call(tiny("llama"), **ONE, max_new_tokens=3, **flags)

    def test_an_unknown_key_in_a_config(self) -> None:
        config = transformers.GenerationConfig(max_new_tokens=3)
        config.temprature = 2.0
        with pytest.raises(genmode.ParameterError, match="mean 'temperature'"):
            genmode.generate(tiny("llama"), **ONE, generation_config=config)

    def test_what_has_no_generate(self) -> None:
        with pytest.raises((genmode.GenmodeError, AttributeError), match="generat"):
            genmode.generate(torch.nn.Linear(2, 2), ONE["input_ids"])


class TestValues:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"num_beams": 0}, "num_beams=0"),
            ({"num_beams": "2"}, "num_beams='2' is no whole number"),
            ({"num_beams": 2.5}, "num_beams=2.5"),
            ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 is more than num_beams=2"),
            ({"num_beams": 2, "early_stopping": "sometimes"}, "early_stopping='sometimes'"),
            ({"num_beams": 2, "length_penalty": "x"}, "length_penalty='x'"),
            ({"num_return_sequences": 2}, "num_return_sequences"),
            ({"max_new_tokens": 0}, "max_new_tokens"),
            ({"max_new_tokens": -1}, "max_new_tokens"),
            ({"max_new_tokens": "3"}, "max_new_tokens='3'"),
            ({"max_new_tokens": 2.5}, "max_new_tokens=2.5"),
            ({"max_new_tokens": None, "max_length": 9}, "max_length.* is set to 9"),
            ({"do_sample": "yes"}, "do_sample='yes': give True or False"),
            ({"do_sample": True, "temperature": 0.0}, "temperature"),
            ({"do_sample": True, "temperature": "hot"}, "temperature"),
            ({"do_sample": True, "top_k": -1}, "top_k"),
            ({"do_sample": True, "min_p": 3.0}, "min_p"),
            ({"do_sample": True, "seed": "x"}, "seed='x'"),
            ({"repetition_penalty": -1.0}, "penalty"),
            ({"bad_words_ids": []}, "bad_words_ids"),
            ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens=0"),
            ({"prompt_lookup_num_tokens": "x"}, "prompt_lookup_num_tokens='x'"),
            ({"max_time": "soon"}, "max_time='soon'"),
            ({"cache_implementation": "nonsense"}, "cache_implementation"),
            ({"generation_config": {"max_new_tokens": 3}}, "generation_config is a dict"),
            ({"streamer": 3}, "streamer=3 has no method put"),
            ({"cancel": 3}, "cancel=3 has no method is_set"),
            ({"stop_strings": "a"}, "tokenizer="),
        ],
        ids=str,
    )
    def test_wrong_types_and_ranges(self, flags: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):  # ParameterError, or what transformers raises
            genmode.generate(tiny("llama"), **ONE, **{"max_new_tokens": 3, **flags})

    @pytest.mark.parametrize("seed", ["x", 1.5, [1, 2], [None]], ids=str)
    def test_explain_refuses_the_seeds_that_generate_refuses(self, seed: Any) -> None:
        messages = []
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(genmode.ParameterError, match="seed") as caught:
                call(tiny("llama"), **ONE, do_sample=True, max_new_tokens=3, seed=seed)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]

    @pytest.mark.parametrize(
        "flags",
        [
            {},
            {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.5, "min_p": 0.1},
            {"do_sample": True, "seed": 3, "typical_p": 0.9},
            {"num_beams": 2},
            {"prompt_lookup_num_tokens": 2},
            {"renormalize_logits": True, "repetition_penalty": 1.2},
            {"mirostat_tau": 3.0, "do_sample": True, "xtc_probability": 0.5, "dry_multiplier": 0.8},
        ],
        ids=str,
    )
    def test_a_row_whose_every_token_is_masked_has_no_nan(self, flags: dict[str, Any]) -> None:
        out = genmode.generate(
            tiny("llama"), **ONE, max_new_tokens=3, suppress_tokens=list(range(100)), return_dict_in_generate=True,
            output_scores=True, **flags,
        )  # fmt: skip
        assert out.sequences.shape == (1, 9 if "num_beams" in flags else 12)  # beams have no hypothesis then
        assert not any(bool(one.isnan().any()) for one in out.scores)

    def test_whole_numbers_of_other_libraries(self) -> None:
        numpy = pytest.importorskip("numpy")
        result = genmode.generate(tiny("llama"), **ONE, do_sample=False, max_new_tokens=numpy.int64(4))
        assert torch.equal(result[:, 9:], greedy("llama", 1, 4))


class TestPrompts:
    @pytest.mark.parametrize(
        ("prompt_given", "message"),
        [
            (torch.zeros(1, 0, dtype=torch.long), r"empty \(shape \[1, 0\]\)"),
            (torch.zeros(0, 4, dtype=torch.long), r"empty \(shape \[0, 4\]\)"),
            (torch.tensor([3, 4]), r"shape \[2\]; give \[batch, length\]"),
            (torch.full((1, 4), 0.5), "torch.float32; give token ids"),
            ([[3, 4]], "is a list; give token ids as a tensor"),
            ({"input_ids": torch.tensor([[3]])}, r"generate\(model, \*\*inputs\)"),
        ],
        ids=str,
    )
    def test_no_prompt_at_all(self, prompt_given: Any, message: str) -> None:
        for name in ("llama", "bart"):
            with pytest.raises(genmode.ParameterError, match=message):
                genmode.generate(tiny(name), prompt_given, max_new_tokens=3)
            with pytest.raises(genmode.ParameterError, match=message):
                genmode.generate(tiny(name), input_ids=prompt_given, max_new_tokens=3)

    def test_a_mask_of_another_shape(self) -> None:
        for mask in (torch.ones(1, 3).long(), torch.ones(2, 9).long()):
            with pytest.raises(genmode.ParameterError, match="one number for each token"):
                genmode.generate(tiny("llama"), ONE["input_ids"], attention_mask=mask, max_new_tokens=3)

    @pytest.mark.oldest
    @pytest.mark.parametrize("flags", [{}, {"num_beams": 3}, {"do_sample": True, "top_p": 0.9}], ids=str)
    @pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mamba", "bart"])
    def test_rows_of_padding_and_padding_on_the_wrong_side(self, name: str, flags: dict[str, Any]) -> None:
        """As transformers, which warns and decodes."""
        hidden, turned = prompt(name, 3), prompt(name, 3)
        hidden["input_ids"][1], hidden["attention_mask"][1] = PAD, 0
        turned = {key: value.flip(1) for key, value in turned.items()}
        for inputs in (hidden, turned):
            results = []
            for generate in (type(tiny(name)).generate, genmode.generate):
                torch.manual_seed(3)
                results.append(generate(tiny(name), **inputs, max_new_tokens=6, **flags))
            assert torch.equal(*results)

    def test_a_hole_in_the_mask(self) -> None:
        inputs = prompt("llama", 2)
        inputs["attention_mask"][0, 4:6] = 0
        stock = tiny("llama").generate(**inputs, **FLAGS)
        for flags in ({}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(genmode.generate(tiny("llama"), **inputs, **FLAGS, **flags), stock)

    def test_longer_than_the_models_positions(self) -> None:
        with pytest.raises(
            genmode.DecodingError, match="70 tokens long, and GPT2LMHeadModel has 64 positions"
        ) as caught:
            genmode.generate(tiny("gpt2"), ids(1, 70), max_new_tokens=3)
        assert torch.equal(caught.value.sequences, ids(1, 70))
        assert isinstance(caught.value.__cause__, IndexError)
        with pytest.raises(genmode.ParameterError, match="70 tokens long, and BartForConditionalGeneration has 64"):
            genmode.generate(tiny("bart"), ids(1, 70), max_new_tokens=3)

    def test_results_longer_than_the_models_positions(self) -> None:
        """What fits is kept."""
        with pytest.raises(
            genmode.DecodingError, match="65 tokens long, and GPT2LMHeadModel has 64 positions"
        ) as caught:
            genmode.generate(tiny("gpt2"), ids(1, 60), max_new_tokens=10, do_sample=False)
        assert torch.equal(caught.value.sequences, tiny("gpt2").generate(ids(1, 60), max_new_tokens=5, do_sample=False))

    def test_rotary_positions_have_no_end(self) -> None:
        result = genmode.generate(tiny("llama"), ids(1, 300), max_new_tokens=3, do_sample=False)
        assert torch.equal(result, tiny("llama").generate(ids(1, 300), max_new_tokens=3, do_sample=False))

    def test_ids_outside_the_vocabulary(self) -> None:
        for wrong in (400, -1):
            with pytest.raises(genmode.DecodingError, match=f"token id {wrong}, and the vocabulary .* 0 to 99"):
                genmode.generate(tiny("llama"), torch.tensor([[3, wrong]]), max_new_tokens=3)


class TestModelsThatCannot:
    @pytest.mark.parametrize("name", ["mamba", "lfm2"])
    def test_drafting_with_a_recurrent_state(self, name: str) -> None:
        for call in (genmode.generate, genmode.explain):
            with pytest.raises(genmode.UnsupportedError, match=f"{type(tiny(name)).__name__} cannot go back"):
                call(tiny(name), **prompt(name, 1), prompt_lookup_num_tokens=3, max_new_tokens=3)

    def test_drafting_with_a_static_cache(self) -> None:
        flags = {"cache_implementation": "static", "prompt_lookup_num_tokens": 3}
        with pytest.raises(genmode.UnsupportedError, match="cannot go back"):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, **flags)


def failing_model(count: int, damage: Callable[[Tensor], None]) -> Any:
    """A Llama whose logits are damaged from forward `count` on, counted from 0."""
    model = fresh("llama")
    seen: list[int] = []

    def hook(module: Any, arguments: Any, outputs: Any) -> None:
        if len(seen) >= count:
            damage(outputs.logits)
        seen.append(1)

    model.register_forward_hook(hook)
    return model


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False}, "sample": {"do_sample": True}, "beams": {"num_beams": 3},
    "beam sample": {"num_beams": 2, "do_sample": True}, "lookup": {"prompt_lookup_num_tokens": 3, "do_sample": False},
}  # fmt: skip


class TestNumbersThatAreNone:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("way", WAYS)
    def test_logits(self, way: str, value: float) -> None:
        model = failing_model(3, lambda logits: logits[-1].fill_(value))
        with pytest.raises(genmode.DecodingError, match=r"not numbers .NaN or infinite. in row") as caught:
            genmode.generate(model, **prompt("llama", 2), max_new_tokens=30, **WAYS[way])
        error = caught.value
        assert error.step == 3
        assert error.row == (2 if "num_beams" not in WAYS[way] else 2 * WAYS[way]["num_beams"]) - 1
        assert error.sequences.shape[1] >= 12
        if way == "greedy":
            assert torch.equal(error.sequences[:, 9:], greedy("llama", 2, 3))

    @pytest.mark.parametrize("way", ["greedy", "sample", "beams"])
    def test_logits_repaired(self, way: str) -> None:
        results = []
        for generate in (transformers.LlamaForCausalLM.generate, genmode.generate):
            model = failing_model(2, lambda logits: logits[..., 5:9].fill_(float("nan")))
            torch.manual_seed(1)
            results.append(generate(model, **ONE, max_new_tokens=6, remove_invalid_values=True, **WAYS[way]))
        assert torch.equal(*results)

    def test_masked_logits_are_fine(self) -> None:
        model = failing_model(0, lambda logits: logits[..., 50:].fill_(-float("inf")))
        assert int(genmode.generate(model, **ONE, **FLAGS)[:, 9:].max()) < 50

    @pytest.mark.parametrize("way", ["greedy", "sample"])
    def test_processors_that_mask_everything(self, way: str) -> None:
        """The row takes token 0."""
        nothing = genmode.generate(
            tiny("llama"), **ONE, max_new_tokens=3, processors=lambda tokens, scores: scores - float("inf"), **WAYS[way]
        )
        assert nothing[0, 9:].tolist() == [0, 0, 0]

    def test_a_forward_that_raises(self) -> None:
        def damage(logits: Tensor) -> None:
            raise OSError("the disk is gone")

        with pytest.raises(genmode.DecodingError, match="forward failed: OSError: the disk is gone") as caught:
            genmode.generate(failing_model(3, damage), **ONE, **FLAGS)
        assert torch.equal(caught.value.sequences[:, 9:], greedy("llama", 1, 3))
        assert isinstance(caught.value.__cause__, OSError)


class Boom(Exception):
    """What the plugins below raise."""


def raising(method: str, after: int = 0) -> Callable[..., Any]:
    """A method that raises when it is called for the time `after`, counted from 0."""
    calls: list[int] = []

    def body(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise Boom(method)
        if method == "check":
            return torch.zeros(arguments[0].rows, dtype=torch.bool)
        return arguments[0] if arguments else None

    return body


def keep(self: Any, scores: Tensor, history: genmode.History) -> Tensor:
    return scores


class TestPluginsThatRaise:
    @pytest.mark.parametrize(
        ("method", "way", "step"),
        [
            ("begin", "greedy", -1), ("process", "greedy", 2), ("process", "sample", 2), ("process", "beams", 2),
            ("process", "lookup", 2), ("accept", "greedy", 2), ("accept", "lookup", 2), ("reorder", "beams", 2),
            ("rollback", "lookup", None),
        ],
    )  # fmt: skip
    def test_processors(self, method: str, way: str, step: int | None) -> None:
        after = 0 if method in ("begin", "rollback") else 2
        body = {"contract_version": 1, "process": keep, method: raising(method, after)}
        broken = type("Broken", (genmode.LogitsProcessor,), body)
        inputs = {"input_ids": torch.tensor([[1, 30, 31, 30, 31, 30]])} if way == "lookup" else ONE
        length = inputs["input_ids"].shape[1]
        with pytest.raises(
            genmode.DecodingError, match=f"'broken' .from the caller. failed in {method}: Boom"
        ) as caught:
            genmode.generate(tiny("llama"), **inputs, max_new_tokens=30, **WAYS[way], processors=broken)
        error = caught.value
        assert isinstance(error.__cause__, Boom)
        assert error.component == "broken"
        assert torch.equal(error.sequences[:1, :length], inputs["input_ids"])
        if step is not None and way != "lookup":
            assert error.step == step
            assert error.sequences.shape[1] >= length + max(step, 0)

    @pytest.mark.parametrize("method", ["begin", "check", "reorder", "rollback"])
    def test_criteria(self, method: str) -> None:
        body = {"contract_version": 1, "check": lambda self, history: torch.zeros(history.rows, dtype=torch.bool)}
        body[method] = raising(method, after=2 if method == "check" else 0)
        broken = type("Broken", (genmode.StoppingCriterion,), body)
        way = {"reorder": "beams", "rollback": "lookup"}.get(method, "greedy")
        inputs = {"input_ids": torch.tensor([[1, 30, 31, 30, 31, 30]])} if way == "lookup" else ONE
        with pytest.raises(genmode.DecodingError, match=rf"criterion broken\(\) failed in {method}: Boom") as caught:
            genmode.generate(tiny("llama"), **inputs, max_new_tokens=30, **WAYS[way], criteria=broken)
        assert caught.value.component == "broken"
        assert caught.value.sequences is not None

    def test_plain_processors_and_criteria(self) -> None:
        def broken(*arguments: Any) -> Any:
            if arguments[0].shape[1] == 11:
                raise Boom("plain")
            return arguments[1] if arguments[1] is not None else False

        for way, who in (({"processors": broken}, "processor 'broken'"), ({"criteria": broken}, "criterion broken"),
                         ({"logits_processor": [broken]}, "processor 'broken' .from the caller")):  # fmt: skip
            with pytest.raises(genmode.DecodingError, match=f"{who}.* failed in .*: Boom: plain") as caught:
                genmode.generate(tiny("llama"), **ONE, **FLAGS, **way)
            assert torch.equal(caught.value.sequences[:, 9:], greedy("llama", 1, 2))

    @pytest.mark.parametrize("kind", ["processor", "criterion"])
    def test_reset(self, kind: str) -> None:
        """The call is over, so its result is on the error; the other components are reset all the same."""
        base = genmode.LogitsProcessor if kind == "processor" else genmode.StoppingCriterion
        good: dict[str, Any] = {"contract_version": 1, "process": keep}
        if kind == "criterion":
            good = {"contract_version": 1, "check": lambda self, history: torch.zeros(history.rows, dtype=torch.bool)}
        ended: list[str] = []
        broken = type("Broken", (base,), {**good, "reset": raising("reset")})
        fine = type("Fine", (base,), {**good, "reset": lambda self: ended.append("fine")})
        parts: dict[str, Any] = {"processors" if kind == "processor" else "criteria": [broken, fine]}
        with pytest.raises(genmode.DecodingError, match="failed in reset: Boom") as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, **parts)
        assert torch.equal(caught.value.sequences[:, 9:], greedy("llama", 1, 8))
        assert ended == ["fine"]

    def test_reset_after_another_failure_is_warned_of(self) -> None:
        broken = type(
            "Broken",
            (genmode.LogitsProcessor,),
            {"contract_version": 1, "process": raising("process"), "reset": raising("reset")},
        )
        with (
            pytest.warns(RuntimeWarning, match="failed in reset"),
            pytest.raises(genmode.DecodingError, match="in process"),
        ):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, processors=broken)

    def test_a_strategy(self) -> None:
        class Broken(genmode.Strategy):
            contract_version = 1

            def decode(self, session: genmode.Session, params: Any) -> None:
                for step in session.steps():
                    if step.index == 4:
                        raise Boom("lost")
                    step.commit(step.scores.argmax(-1))

        with pytest.raises(genmode.DecodingError, match="strategy 'broken' failed at step 4: Boom: lost") as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, strategy=Broken)
        assert torch.equal(caught.value.sequences[:, 9:], greedy("llama", 1, 4))
        assert (caught.value.step, caught.value.component) == (4, "broken")
        assert isinstance(caught.value.__cause__, Boom)

    def test_a_strategy_that_commits_nonsense(self) -> None:
        def committing(tokens: Callable[[genmode.Session], Any]) -> type[genmode.Strategy]:
            def decode(self: Any, session: genmode.Session, params: Any) -> None:
                for step in session.steps():
                    step.commit(tokens(session))

            return type("Odd", (genmode.Strategy,), {"contract_version": 1, "decode": decode})

        for nonsense in (lambda session: torch.zeros(7).long(), lambda session: "token", lambda session: None):
            with pytest.raises(genmode.DecodingError, match="'odd' failed at step 0"):
                genmode.generate(tiny("llama"), **ONE, **FLAGS, strategy=committing(nonsense))
        with pytest.raises(genmode.DecodingError, match="token id 5000") as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, strategy=committing(lambda session: torch.full((1,), 5000)))
        assert caught.value.sequences.shape == (1, 10)

    @pytest.mark.parametrize(
        "hook",
        ["genmode_processors", "genmode_criteria", "genmode_watermarkers", "genmode_resolve_strategy",
         "genmode_session_begin", "genmode_session_step", "genmode_session_end"],
    )  # fmt: skip
    def test_every_hook(self, hook: str) -> None:
        arguments = {"genmode_resolve_strategy": "flags", "genmode_session_begin": "session", "genmode_session_step": "session",
                     "genmode_session_end": "session"}.get(hook, "call")  # fmt: skip
        scope: dict[str, Any] = {"Boom": Boom}
        exec(f"def {hook}(self, {arguments}):\n    raise Boom('hook')\n", scope)
        plugin = type("Plugin", (), {hook: genmode.hookimpl(scope[hook])})()
        with use(Registry()) as registry:
            registry.register(plugin, kind="hooks", name="bad")
            with pytest.raises(genmode.GenmodeError, match=f"'bad'.* failed in {hook}: Boom") as caught:
                genmode.generate(tiny("llama"), **ONE, **FLAGS)
        assert isinstance(caught.value.__cause__, Boom)
        kept = {"genmode_session_begin": 9, "genmode_session_step": 10, "genmode_session_end": 17}
        if hook in kept:
            assert caught.value.sequences.shape == (1, kept[hook])

    def test_components_are_reset_whatever_happened(self) -> None:
        ended: list[int] = []
        body = {"contract_version": 1, "process": raising("process", 2), "reset": lambda self: ended.append(1)}
        with pytest.raises(genmode.DecodingError):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, processors=type("Broken", (genmode.LogitsProcessor,), body))
        assert ended == [1]

    def test_a_processor_of_the_wrong_shape(self) -> None:
        with pytest.raises(genmode.DecodingError) as caught:
            genmode.generate(tiny("llama"), **prompt("llama", 2), **FLAGS, processors=lambda tokens, scores: None)
        assert caught.value.step == 0


class TestStreamersThatRaise:
    @pytest.mark.parametrize(("puts", "length"), [(0, 9), (1, 10), (4, 13)])
    def test_put(self, puts: int, length: int) -> None:
        class Broken(transformers.generation.BaseStreamer):
            seen = 0

            def put(self, value: Tensor) -> None:
                self.seen += 1
                if self.seen > puts:
                    raise Boom("pipe closed")

            def end(self) -> None: ...

        message = r"the streamer \(Broken\) failed in put: Boom: pipe closed"
        with pytest.raises(genmode.DecodingError, match=message) as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, streamer=Broken())
        assert caught.value.sequences.shape == (1, length)
        assert isinstance(caught.value.__cause__, Boom)

    def test_end(self) -> None:
        class Broken(transformers.generation.BaseStreamer):
            def put(self, value: Tensor) -> None: ...

            def end(self) -> None:
                raise Boom("late")

        with pytest.raises(genmode.DecodingError, match="failed in end") as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, streamer=Broken())
        assert torch.equal(caught.value.sequences[:, 9:], greedy("llama", 1, 8))

    def test_a_text_streamer_takes_one_row(self) -> None:
        streamer = transformers.TextStreamer(tokenizer())
        with pytest.raises(genmode.DecodingError, match="only supports batch size 1"):
            genmode.generate(tiny("llama"), **prompt("llama", 2), **FLAGS, streamer=streamer)


class TestInterruption:
    def test_the_keyboard(self) -> None:
        def damage(logits: Tensor) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            genmode.generate(failing_model(3, damage), **ONE, **FLAGS)
        assert caught.value.sequences.shape == (1, 12)

    def test_memory(self) -> None:
        def damage(logits: Tensor) -> None:
            raise torch.OutOfMemoryError("no memory left")

        with pytest.raises(torch.OutOfMemoryError) as caught:
            genmode.generate(failing_model(3, damage), **ONE, **FLAGS)
        assert caught.value.sequences.shape == (1, 12)

    def test_an_event_that_raises(self) -> None:
        class Event(threading.Event):
            def is_set(self) -> bool:
                raise Boom("event")

        with pytest.raises(genmode.DecodingError, match="Boom: event"):
            genmode.generate(tiny("llama"), **ONE, **FLAGS, cancel=Event())


def test_no_prompt_begins_a_text() -> None:
    result = genmode.generate(tiny("llama"), max_new_tokens=3, do_sample=False)
    assert result[0, 0] == BOS


def test_errors_derive_from_what_a_caller_would_catch() -> None:
    pairs: Mapping[type[Exception], type[Exception]] = {
        genmode.ParameterError: ValueError, genmode.UnknownComponentError: LookupError,
        genmode.UnsupportedError: NotImplementedError, genmode.DecodingError: RuntimeError,
        genmode.CancelledError: genmode.DecodingError, genmode.PluginLoadError: ImportError,
    }  # fmt: skip
    for ours, built_in in pairs.items():
        assert issubclass(ours, built_in)
        assert issubclass(ours, genmode.GenmodeError)
