"""From the inputs that transformers prepared to a result: builds the session, runs the strategy.

`Loop` is the callable that goes to `model.generate(custom_generate=...)`. It carries what the callable
form drops: streamer, tokenizer and the models beside the first.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import parameters, seam
from .contract import LogitsProcessor, Stage, StoppingCriterion, Strategy
from .errors import DecodingError, GenmodeError, ParameterError, UnsupportedError
from .plan import Part, Plan
from .request import Request
from .session import Session, graphs
from .session.chain import Chain, Link, TransformersProcessor, link, ordered
from .session.engine import Engine
from .session.history import History
from .session.outputs import Recorder
from .session.portable import PortableEngine
from .session.random import Noise, SeededNoise, TorchNoise, row_seeds, share_state
from .session.slab_engine import PLAIN_INPUTS, SlabEngine
from .session.step import Step
from .session.stopping import Stopping, TransformersCriterion
from .session.stream import Emitter

OWN_RANK = 1000
"""Rank of processors that transformers does not build: behind those of the same stage that it does."""


class Loop:
    """Decodes one request, or plans it, when transformers calls it with the prepared inputs."""

    def __init__(self, request: Request, plan_only: bool = False) -> None:
        self.request, self.plan_only = request, plan_only

    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        inputs_tensor: Tensor | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Run the loop; the arguments are those of transformers' decoding methods."""
        request = self.request
        kwargs.pop("synced_gpus", None)
        links = build_links(request, logits_processor)
        stopping, others = build_stopping(request, stopping_criteria, generation_config, input_ids.device)
        engine, why = open_engine(request, input_ids, generation_config, kwargs, stopping.max_length)
        try:
            if self.plan_only:
                return make_plan(request, links, stopping, others, engine, why, input_ids)
            session = open_session(request, input_ids, inputs_tensor, generation_config, kwargs, links, stopping, engine)
            return decode(request, session, kwargs.get("encoder_outputs"))
        finally:
            engine.close()


def build_links(request: Request, prepared: Sequence[Any]) -> list[Link]:
    """The processors of the call in order: transformers', those that keys switch on, and the caller's."""
    adopters = adopters_of(request)
    links: list[Link] = []
    for rank, processor in enumerate(prepared):
        native = next(
            (one for cls in adopters.get(type(processor).__name__, ()) if (one := cls.adopt(processor)) is not None), None
        )
        origin = "transformers" if type(processor).__module__.startswith("transformers.") else "the caller"
        links.append(link(native or TransformersProcessor(processor), rank, origin))
    for key_owner, values in switched_on(request).items():
        links.append(link(key_owner(parameters.build_params(key_owner, values)), OWN_RANK, _origin(request, key_owner)))
    for contributed in request.registry.hooks().contributions("genmode_processors", request):
        links.append(link(as_processor(request, contributed), OWN_RANK, "a hook plugin"))
    for contributed in request.registry.hooks().contributions("genmode_watermarkers", request):
        links.append(link(as_processor(request, contributed), OWN_RANK, "a hook plugin"))
    for given in request.processors:
        mine = link(as_processor(request, given), OWN_RANK, "the caller")
        twins = [one for one in links if _same(one, mine)]
        rank = twins[0].rank if twins else OWN_RANK
        links = [one for one in links if one not in twins]
        links.append(Link(mine.name, mine.stage, rank, mine.processor, mine.origin))
    return ordered(links)


def _same(one: Link, other: Link) -> bool:
    if isinstance(one.processor, TransformersProcessor) and isinstance(other.processor, TransformersProcessor):
        return inspect.isclass(type(one.processor.call)) and type(one.processor.call) is type(other.processor.call) and (
            not inspect.isroutine(one.processor.call)
        )
    return one.name == other.name


def _origin(request: Request, cls: type) -> str:
    for kind in ("processors", "watermarkers"):
        for info in request.registry.components(kind):
            if info.name == getattr(cls, "name", None):
                return f"{info.distribution} {info.version}".strip()
    return "this program"


def adopters_of(request: Request) -> dict[str, list[type[LogitsProcessor]]]:
    """genmode's own processors that stand in for transformers classes, by the name of the class."""
    found: dict[str, list[type[LogitsProcessor]]] = {}
    for info in request.registry.components("processors"):
        if info.distribution == "genmode" and info.state in ("discovered", "loaded"):
            cls = request.registry.get("processors", info.name)
            for name in cls.replaces:
                found.setdefault(name, []).append(cls)
    return found


def switched_on(request: Request) -> dict[type[LogitsProcessor], dict[str, Any]]:
    """Processors that a key of the call or of a config switches on, with their values."""
    chosen: dict[type[LogitsProcessor], dict[str, Any]] = {}
    for key, value in request.plugin_values.items():
        for info in request.registry.owners(key):
            if info.kind not in ("processors", "watermarkers"):
                continue
            cls = request.registry.get(info.kind, info.name)
            if cls.active == "set":
                chosen.setdefault(cls, {})[key] = value
    return chosen


def as_processor(request: Request, given: Any) -> LogitsProcessor:
    """What the caller means by a name, class, object, watermarking config or plain callable."""
    if isinstance(given, str):
        kind = "processors"
        if given not in {info.name for info in request.registry.components("processors")}:
            if given in {info.name for info in request.registry.components("watermarkers")}:
                kind = "watermarkers"
        given = request.registry.get(kind, given)
    if isinstance(given, type) and issubclass(given, LogitsProcessor):
        values = {k: request.flags[k] for k in given.Params.model_fields if k in request.flags and request.flags[k] is not None}
        values.update({k: v for k, v in request.plugin_values.items() if k in given.Params.model_fields})
        return given(parameters.build_params(given, values))
    if isinstance(given, LogitsProcessor):
        return given
    if hasattr(given, "build") and hasattr(given, "scheme"):
        return as_processor(request, given.build())
    if callable(given):
        return TransformersProcessor(given)
    raise ParameterError(
        f"{given!r} is no processor; give the name of one, a LogitsProcessor, or a callable (input_ids, scores) -> scores"
    )


def build_stopping(
    request: Request, prepared: Sequence[Any], config: Any, device: torch.device
) -> tuple[Stopping, list[str]]:
    """The criteria of the call; length, time and end of sequence are the session's own."""
    eos, _ = seam.special_tokens(config)
    deadline: float | None = None
    others: list[StoppingCriterion] = []
    names = [f"max_length({config.max_length})"] + ([f"eos({eos})"] if eos else [])
    for criterion in prepared:
        kind = type(criterion).__name__
        if kind in ("MaxLengthCriteria", "EosTokenCriteria"):
            continue
        if kind == "MaxTimeCriteria":
            deadline = time.monotonic() + criterion.max_time - max(0.0, time.time() - criterion.initial_timestamp)
            names.append(f"max_time({criterion.max_time} s)")
            continue
        others.append(TransformersCriterion(criterion))
    if request.flags["stop_strings"] is not None:
        others.append(_stop_strings(request))
    for key, value in request.plugin_values.items():
        for info in request.registry.owners(key):
            if info.kind == "criteria":
                cls = request.registry.get("criteria", info.name)
                if not any(type(one) is cls for one in others):
                    values = {k: v for k, v in request.plugin_values.items() if k in cls.Params.model_fields}
                    others.append(cls(parameters.build_params(cls, values)))
        del value
    for given in (*request.criteria, *request.registry.hooks().contributions("genmode_criteria", request)):
        others.append(_as_criterion(request, given))
    names += [repr(one) for one in others]
    return Stopping(config.max_length, deadline, eos, device, others), names


def _stop_strings(request: Request) -> StoppingCriterion:
    from transformers import StopStringCriteria

    strings = request.flags["stop_strings"]
    strings = [strings] if isinstance(strings, str) else list(strings)
    if request.tokenizer is None:
        raise ParameterError(f"stop_strings={strings!r} needs the tokenizer; pass tokenizer=")
    if not strings or any(not isinstance(one, str) or not one for one in strings):
        raise ParameterError(f"stop_strings={strings!r}: give one or more strings of at least one character")
    return TransformersCriterion(StopStringCriteria(tokenizer=request.tokenizer, stop_strings=strings))


def _as_criterion(request: Request, given: Any) -> StoppingCriterion:
    if isinstance(given, str):
        given = request.registry.get("criteria", given)
    if isinstance(given, type) and issubclass(given, StoppingCriterion):
        values = {k: v for k, v in request.plugin_values.items() if k in given.Params.model_fields}
        return given(parameters.build_params(given, values))
    if isinstance(given, StoppingCriterion):
        return given
    if callable(given):
        return TransformersCriterion(given)
    raise ParameterError(f"{given!r} is no criterion; give the name of one, a StoppingCriterion, or a callable")


def open_engine(
    request: Request, input_ids: Tensor, config: Any, kwargs: dict[str, Any], max_length: int
) -> tuple[Engine, str]:
    """The engine of a call, with what the strategy needs of it."""
    needs = request.strategy.needs
    if "hidden_states" in needs:
        kwargs["output_hidden_states"] = True
    if "attentions" in needs:
        kwargs["output_attentions"] = True
    return choose_engine(
        request.model, input_ids, config, kwargs, max_length, "rollback" in needs, request.compile
    )


def choose_engine(
    model: Any, input_ids: Tensor, config: Any, kwargs: dict[str, Any], max_length: int, rewinds: bool, compiled: bool
) -> tuple[Engine, str]:
    """The fastest engine that can run a model on prepared inputs, and why it is not a faster one."""
    reason = seam.slab_obstacle(model, kwargs.get("past_key_values"), max_length)
    if reason is None:
        other = {k for k, v in kwargs.items() if v is not None} - PLAIN_INPUTS
        if other:
            reason = f"the call passes {', '.join(sorted(other))}"
        elif not kwargs.get("use_cache", True):
            reason = "use_cache is off"
    if reason is not None:
        return PortableEngine(model, input_ids, config, kwargs, rewinds), reason
    copies = max(config.num_beams or 1, config.num_return_sequences or 1)
    obstacle = graphs.obstacle(model, input_ids.device, bool(kwargs.get("output_attentions")))
    if obstacle is None:
        capacity = min(max_length, input_ids.shape[1] + 1024)
        return graphs.GraphEngine(model, input_ids, config, kwargs, copies, capacity, compiled), ""
    capacity = min(max_length, input_ids.shape[1] + 256)
    return SlabEngine(model, input_ids, config, kwargs, copies, capacity), obstacle


def open_beside(request: Request, model: Any, input_ids: Tensor, mask: Tensor, max_length: int) -> Engine:
    """An engine for a second model or context, whose inputs transformers prepares as it does the first's."""

    def catch(own: Any, ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **kwargs: Any) -> Engine:
        del own, logits_processor, stopping_criteria
        kwargs.pop("synced_gpus", None)
        rewinds = "rollback" in request.strategy.needs
        return choose_engine(model, ids, generation_config, kwargs, max_length, rewinds, request.compile)[0]

    engine: Engine = seam.plain_generate(model)(
        input_ids, attention_mask=mask, max_length=max_length, do_sample=False, num_beams=1, custom_generate=catch
    )
    return engine


def make_plan(
    request: Request, links: list[Link], stopping: Stopping, criteria: list[str], engine: Engine, why: str, ids: Tensor
) -> Plan:
    """The plan of a call that is not run."""
    infos = [info for info in request.registry.components("strategies") if info.name == request.name]
    origin = f"{infos[0].distribution} {infos[0].version}".strip() if infos else "this program"
    return Plan(
        strategy=request.name,
        origin=origin,
        why=request.why,
        parameters=request.params.model_dump(),
        processors=tuple(
            Part(one.name, Stage(one.stage).name.lower(), repr(one.processor), one.origin) for one in links
        ),
        criteria=tuple(criteria),
        engine=engine.name,
        engine_why=why,
        rows=ids.shape[0],
        random="torch's generator" if request.seed is None else "a seed for each row",
    )


def open_session(
    request: Request, input_ids: Tensor, inputs_tensor: Tensor | None, config: Any, kwargs: dict[str, Any],
    links: list[Link], stopping: Stopping, engine: Engine,
) -> Session:  # fmt: skip
    """A session ready to run."""
    model, device = request.model, input_ids.device
    rows, prompt = input_ids.shape
    copies = max(config.num_beams or 1, config.num_return_sequences or 1)
    inputs = rows // copies
    width = min(stopping.max_length, prompt + 4096)
    tokens = torch.zeros(rows, width, dtype=torch.long, device=device)
    tokens[:, :prompt] = input_ids
    mask = kwargs.get("decoder_attention_mask" if model.config.is_encoder_decoder else "attention_mask")
    starts = torch.zeros(rows, dtype=torch.long, device=device)
    if mask is not None and mask.dim() == 2 and mask.shape[1] == prompt:
        starts = (mask == 0).long().cumprod(1).sum(1).to(device)
    history = History(tokens, torch.full((rows,), prompt, device=device), starts, prompt, prompt)
    world = seam.tensor_parallel_size(model)
    noise: Noise
    if request.seed is None:
        if world > 1:
            share_state(device)
        noise = TorchNoise(rows, device)
    else:
        noise = SeededNoise(row_seeds(request.seed, inputs, copies, device))
    emitter = None
    if request.streamer is not None:
        beams = (config.num_beams or 1) > 1
        if beams and (config.num_return_sequences or 1) > 1:
            raise ParameterError("a streamer takes one result for each input; leave out num_return_sequences")
        emitter = Emitter(request.streamer, input_ids[::copies] if beams else input_ids)
    relay = request.registry.hooks()
    _, pad = seam.special_tokens(config)
    cancel = request.cancel
    text = model.config.get_text_config(decoder=True)
    session = Session(
        model=model, tokenizer=request.tokenizer, config=config, engine=engine, history=history, chain=Chain(links),
        stopping=stopping, noise=noise, recorder=Recorder(config, model.config.is_encoder_decoder), emitter=emitter,
        inputs=inputs, pad_token_id=pad, vocab_size=int(text.vocab_size),
        encoder_input_ids=inputs_tensor if model.config.is_encoder_decoder else None,
        cancelled=cancel.is_set if cancel is not None else None,
        agree=_agreement(device) if world > 1 else None,
        peers=(lambda finished: seam.peers_unfinished(model, finished, device)) if request.synced else None,
        open_beside=lambda other, ids, mask, longest: open_beside(request, other, ids, mask, longest),
        observe=(lambda s, step: _observe(relay, s, step)) if relay.has("genmode_session_step") else None,
    )  # fmt: skip
    session.chain.begin(session)
    for one in stopping.others:
        one.begin(session)
    session.share_scores()
    return session


def _observe(relay: Any, session: Session, step: Step) -> None:
    relay.call("genmode_session_step", session=session, step=step)


def _agreement(device: torch.device) -> Callable[[bool], bool]:
    """All processes of a tensor-parallel group take the first one's word."""

    def agree(value: bool) -> bool:
        carrier = torch.tensor([value], dtype=torch.uint8, device=device)
        torch.distributed.broadcast(carrier, 0)
        return bool(carrier.item())

    return agree


def decode(request: Request, session: Session, encoder: Any) -> Any:
    """Run the strategy and return the result; what was decoded survives an error.

    Raises:
        DecodingError: with what was decoded so far and the original error as its cause.
    """
    strategy: Strategy = request.strategy(request.params)
    relay = request.registry.hooks()
    failure: BaseException | None = None
    try:
        with torch.no_grad(), seam.decode_mode(session.model):
            if relay.has("genmode_session_begin"):
                relay.call("genmode_session_begin", session=session)
            strategy.decode(session, request.params)
            session.flush()
        return session.recorder.result(session.sequences(), encoder, cached(session), session.beams)
    except DecodingError as error:
        failure = _completed(error, session)
        raise
    except (GenmodeError, UnsupportedError, torch.OutOfMemoryError, KeyboardInterrupt) as error:
        failure = error
        error.sequences = session.sequences()  # type: ignore[union-attr,attr-defined]
        raise
    except Exception as error:
        failure = error
        raise _completed(
            DecodingError(
                f"strategy {request.name!r} failed at step {session.step_index}: {type(error).__name__}: {error}",
                component=request.name,
            ),
            session,
        ) from error
    finally:
        for engine in session.beside:
            engine.close()
        session.chain.reset()
        for one in session.stopping.others:
            one.reset()
        if relay.has("genmode_session_end"):
            relay.call("genmode_session_end", session=session, error=failure)


def cached(session: Session) -> Any:
    """The cache for the output class, if there will be one."""
    return session.engine.cache() if session.recorder.returns_dict else None


def _completed(error: DecodingError, session: Session) -> DecodingError:
    if error.sequences is None:
        error.sequences = session.sequences()
    if error.step is None:
        error.step = session.step_index
    return error

