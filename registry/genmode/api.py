"""Generate, stream, explain, attach."""

from __future__ import annotations

import contextvars
import functools
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from . import tracing
from .call.inputs import check_objects, prompt_ids
from .call.loop import Loop
from .call.request import build
from .contract.kinds import Kind
from .errors import GenmodeError, ParameterError, UnsupportedError
from .hf.embeddings import lookup_failure
from .hf.generate import has_loop_of_its_own, plain_generate
from .plan import Plan
from .plugins.parameters import is_foreign
from .plugins.registry import registry
from .session.stream import EndingOnce
from .text.pieces import TextPieces


def generate(
    model: Any, inputs: Tensor | None = None, *, strategy: Any = None, processors: Any = None, criteria: Any = None,
    watermark: Any = None, draft: Any = None, verify: Any = None, seed: int | list[int] | None = None,
    generation_config: Any = None, streamer: Any = None, tokenizer: Any = None, cancel: Any = None, compile: bool = False,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """Decode from a model that transformers can generate with.

    Takes all that `model.generate` takes, and returns what it returns. With the same flags and the same
    `torch.manual_seed`, modes that transformers has give the same tokens.

    Args:
        model: a transformers model.
        inputs: `[batch, length]`, long, or what the model's encoder takes; may also come as `input_ids=`.
        strategy: name, class or object; None to resolve one from the flags.
        processors: names, classes or objects of genmode or transformers, or callables
            `(input_ids, scores) -> scores`. One that the flags would build too is replaced.
        criteria: the same for stopping criteria.
        watermark: name or object of a watermarker, or a `genmode.WatermarkingConfig`.
        draft: name, class or object of a drafter, whose guesses are verified in one forward.
        verify: the same of a verification: how drafts are accepted under sampling; None for the drafter's own, see
            `genmode.explain`.
        seed: one number, or one for each input. Makes a row's result independent of the batch and of
            torch's generator.
        generation_config: a config of genmode or transformers; keyword arguments win over it.
        streamer: gets tokens as they are decoded, `put(tensor)`, and `end()` once, also when the call fails.
        tokenizer: needed by stop strings and some processors.
        cancel: an object with `is_set()`, such as `threading.Event`; set it to end the call with
            `CancelledError`.
        compile: on CUDA, optimise the forward with torch.compile before it is captured. Takes a minute or
            more once for each model and shape; worth it for a model that serves for hours.
        kwargs: flags of transformers, parameters of components, and model inputs.

    A model whose class brings a `generate` of its own runs that, untouched, unless the call names a strategy,
    processors, criteria, a watermark, a drafter, a verification, a seed or `cancel`.

    Returns:
        `[batch * num_return_sequences, length]`, long, prompt included; or, with
        `return_dict_in_generate=True`, transformers' output class.

    Raises:
        ParameterError: an unknown or contradictory argument; the message names the closest key.
        DecodingError: decoding failed; `sequences` holds what had been decoded.
        KeyboardInterrupt: from outside; it has `sequences` as well once decoding has begun.
    """
    if streamer is not None:
        check_objects(None, streamer, None)
        streamer = EndingOnce(streamer)
    loop: Loop | None = None
    try:
        with (
            streamer or nullcontext(),
            tracing.traced_call() if tracing.tracing() else nullcontext() as clock,
        ):
            named = (strategy, processors, criteria, watermark, draft, verify, seed, cancel)
            if all(one is None for one in named) and has_loop_of_its_own(model):
                if clock is not None:
                    clock.planned(_plan_of_others(model), model)
                return _untouched(model, inputs, generation_config, streamer and streamer.streamer, tokenizer, kwargs)
            request = build(
                model, inputs, strategy=strategy, processors=processors, criteria=criteria, watermark=watermark,
                draft=draft, verify=verify, seed=seed, generation_config=generation_config, streamer=streamer, tokenizer=tokenizer, cancel=cancel,
                compile=compile, **kwargs,
            )  # fmt: skip
            loop = Loop(request)
            return _through_transformers(request, loop)
    except KeyboardInterrupt as error:
        if loop is not None:
            loop.hand_over(error)
        raise


def explain(model: Any, inputs: Tensor | None = None, **kwargs: Any) -> Plan:
    """What `generate` with these arguments would do, and why; runs no forward of the decoder.

    Takes the arguments of `generate` and raises the same errors.
    """
    names = ("strategy", "processors", "criteria", "watermark", "draft", "verify", "seed", "cancel")
    if all(kwargs.get(name) is None for name in names) and has_loop_of_its_own(model):
        return _plan_of_others(model)
    request = build(model, inputs, **kwargs)
    plan: Plan = _through_transformers(request, Loop(request, plan_only=True))
    return plan


def stream(model: Any, inputs: Tensor | None = None, *, tokenizer: Any = None, **kwargs: Any) -> Iterator[Any]:
    """Iterate over tokens, or text, as they are decoded.

    Args:
        tokenizer: with it, yields text (of one row); without, tensors `[rows]`, long.

    Leaving the iterator cancels the call. An error of the call is raised where it is iterated.
    """
    cancel = kwargs.pop("cancel", None) or threading.Event()
    pieces: queue.Queue[Any] = queue.Queue()
    end = object()

    def put(piece: Any) -> None:
        pieces.put(piece)

    streamer = _TokenStreamer(put) if tokenizer is None else _TextStreamer(put, TextPieces(tokenizer))

    def work() -> None:
        try:
            generate(model, inputs, tokenizer=tokenizer, streamer=streamer, cancel=cancel, **kwargs)
            pieces.put(end)
        except BaseException as error:
            pieces.put(error)

    context = contextvars.copy_context()  # so that a trace in force here is in force there
    thread = threading.Thread(target=context.run, args=(work,), name="genmode-stream", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not end:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        cancel.set()
        thread.join()
        # An error's traceback has this frame and the thread's, which would keep it and the whole call alive.
        piece = None
        pieces.queue.clear()


class _TokenStreamer:
    """Passes tokens on, without the prompt."""

    def __init__(self, put: Any) -> None:
        self.pass_on, self.prompt = put, True

    def put(self, value: Tensor) -> None:
        if self.prompt:
            self.prompt = False
        else:
            self.pass_on(value)

    def end(self) -> None:
        """The caller learns of the end from the thread."""


class _TextStreamer(_TokenStreamer):
    """Passes the text of one row on, without the prompt."""

    def __init__(self, put: Any, text: TextPieces) -> None:
        super().__init__(put)
        self.text = text

    def put(self, value: Tensor) -> None:
        if value.dim() > 1 and value.shape[0] > 1:
            raise ValueError("text is streamed of one row; leave the tokenizer out to get the tokens of all")
        if self.prompt:
            self.prompt = False
        elif piece := self.text.add(value.flatten().tolist()):
            self.pass_on(piece)

    def end(self) -> None:
        if piece := self.text.rest():
            self.pass_on(piece)


def attach(model: Any) -> Any:
    """Have `model.generate`, and so pipelines and trainers, go through genmode; returns the model.

    Undone by `detach`. The signature of `model.generate` stays as it was, and keeps its own arguments first. An attached
    model refers to itself: where Python's garbage collector is off, detach it before it is dropped.
    """
    if "generate" not in vars(model):
        model.generate = functools.partial(_attached, model)
    return model


def detach(model: Any) -> Any:
    """Give `model.generate` back to transformers; returns the model."""
    own = vars(model).get("generate")
    if own is not None and getattr(own, "func", None) is _attached:
        del model.generate
    return model


def _attached(
    model: Any, inputs: Any = None, generation_config: Any = None, logits_processor: Any = None,
    stopping_criteria: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    if kwargs.get("custom_generate") is not None:
        return plain_generate(model)(inputs, generation_config, logits_processor, stopping_criteria, **kwargs)
    kwargs.pop("custom_generate", None)
    for key, value in (("logits_processor", logits_processor), ("stopping_criteria", stopping_criteria)):
        if value is not None:
            kwargs[key] = value
    return generate(model, inputs, generation_config=generation_config, **kwargs)


class GenerationMixin:
    """For model classes: `class Mine(genmode.GenerationMixin, LlamaForCausalLM)` generates through genmode."""

    def generate(self, inputs: Any = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """See `genmode.generate`; arguments in transformers' order."""
        return _attached(self, inputs, generation_config, **kwargs)


def _plan_of_others(model: Any) -> Plan:
    cls = type(model).__name__
    return Plan("none", "transformers", f"{cls} brings a generate of its own", {}, engine=f"{cls}.generate")


def _untouched(
    model: Any, inputs: Any, config: Any, streamer: Any, tokenizer: Any, kwargs: dict[str, Any]
) -> Any:  # fmt: skip
    """The model's own `generate`, with the arguments as they came.

    Raises:
        UnsupportedError: it does not take a key that is a parameter of genmode's components.
    """
    given = {"generation_config": config, "streamer": streamer, "tokenizer": tokenizer}
    kwargs = {**kwargs, **{name: value for name, value in given.items() if value is not None}}
    try:
        return plain_generate(model)(*([] if inputs is None else [inputs]), **kwargs)
    except (TypeError, ValueError) as error:
        # Asked only now: a loop of its own may have a key by that name itself.
        strays = [key for key in kwargs if is_foreign(key) and re.search(rf"\b{re.escape(key)}\b", str(error))]
        owned = {key: owners for key in strays if (owners := registry().owners(key))}
        if not owned:
            raise
        told = ", ".join(f"{key} of {Kind(owners[0].kind).noun} {owners[0].name!r}" for key, owners in owned.items())
        raise UnsupportedError(
            f"{type(model).__name__} brings a generate of its own, which does not take parameters of genmode's components "
            f"({told}); leave them out"
        ) from error


def _through_transformers(request: Any, loop: Loop) -> Any:
    """Have transformers prepare the inputs and call the loop."""
    grad = torch.is_grad_enabled()
    try:
        # Not torch.no_grad(): an interrupt inside its __enter__ would leave gradients off for good.
        torch.set_grad_enabled(False)
        device = request.model.device
        # graphs are captured, and kernels started, on the current device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            result = _call_with_loop(request, loop)
    except (GenmodeError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of transformers' preparation: what the loop raises is of the family
        ids = prompt_ids(request.model, request.call)
        reason = ""
        if isinstance(error, IndexError) and isinstance(ids, Tensor):
            reason = lookup_failure(request.model, ids)  # an encoder has looked up embeddings that it does not have
        raise ParameterError(
            reason or f"transformers cannot prepare this call: {type(error).__name__}: {error}"
        ) from error
    finally:
        torch.set_grad_enabled(grad)
    if not loop.called:
        raise UnsupportedError(_NOT_CALLED.format(type(request.model).__name__))
    return result


_NOT_CALLED = (
    "{} brings a generate of its own, which decodes by itself and takes no strategy, processors, criteria, watermark, seed "
    "or cancel; leave them out"
)


def _call_with_loop(request: Any, loop: Loop) -> Any:
    """The model's `generate` with the loop; one of the model's own gets what is decoded from as its first argument."""
    call, first = dict(request.call), []
    if has_loop_of_its_own(request.model) and call.get("inputs") is not None:
        first.append(call.pop("inputs"))
    try:
        return plain_generate(request.model)(*first, generation_config=request.config, custom_generate=loop, **call)
    except (TypeError, ValueError) as error:
        if loop.called or "custom_generate" not in str(error):
            raise
        raise UnsupportedError(_NOT_CALLED.format(type(request.model).__name__)) from error
