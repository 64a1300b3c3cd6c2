"""What fails while a call runs, the model, a plugin, a streamer, the user: a clear error, and everything still works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import genmode
from genmode.plugins.registry import Registry, use
from genmode.testing.harness.models import fresh, greedy, prompt, tiny, tokenizer

from .bad_input_support import FLAGS, ONE

pytestmark = pytest.mark.usefixtures("_all_is_as_before")


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
        with pytest.raises(genmode.DecodingError, match=r"no token left.*the caller; masked 100 of 100") as caught:
            genmode.generate(
                tiny("llama"), **ONE, max_new_tokens=3, **WAYS[way],
                processors=lambda tokens, scores: scores - float("inf") if tokens.shape[1] > 10 else scores,
            )  # fmt: skip
        assert caught.value.sequences.shape == (1, 11)

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
        with pytest.raises(genmode.DecodingError, match="token 5000") as caught:
            genmode.generate(tiny("llama"), **ONE, **FLAGS, strategy=committing(lambda session: torch.full((1,), 5000)))
        assert caught.value.sequences.shape == (1, 9)

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

    @pytest.mark.parametrize(
        "wrong", [{"max_new_token": 3}, {"processors": raising("process")}, {"seed": "x"}, {"eos_token_id": [[]]}],
        ids=["argument", "processor", "seed", "flag"],
    )  # fmt: skip
    def test_a_streamer_learns_of_the_end_of_a_call_that_fails(self, wrong: dict[str, Any]) -> None:
        streamer = transformers.TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=20)

        def call() -> None:
            with pytest.raises(genmode.GenmodeError):
                genmode.generate(tiny("llama"), **ONE, **{**FLAGS, **wrong}, streamer=streamer)

        thread = threading.Thread(target=call)
        thread.start()
        list(streamer)  # would wait for the end
        thread.join()
        assert streamer.text_queue.empty()

    def test_a_streamer_that_fails_in_the_end_of_a_call_that_fails(self) -> None:
        class Broken(transformers.generation.BaseStreamer):
            def put(self, value: Tensor) -> None: ...

            def end(self) -> None:
                raise Boom("late")

        with pytest.warns(RuntimeWarning, match="after the call had failed, the streamer .Broken. failed in end: late"):  # noqa: SIM117
            with pytest.raises(genmode.ParameterError, match="seed"):
                genmode.generate(tiny("llama"), **ONE, **FLAGS, seed="x", streamer=Broken())

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
