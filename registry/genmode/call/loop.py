"""From the inputs that transformers prepared to a result: builds the session, runs the strategy.

`Loop` is the callable that goes to `model.generate(custom_generate=...)`. It carries what the callable
form drops: streamer, tokenizer and the models beside the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import seam
from ..contract import Stage, Strategy
from ..errors import DecodingError, GenmodeError, ParameterError
from ..hooks import Relay
from ..plan import Part, Plan
from ..session import Session
from ..session.chain import Chain, Link
from ..session.engine import Engine
from ..session.history import History
from ..session.outputs import Recorder
from ..session.random import Noise, SeededNoise, TorchNoise, row_seeds, share_state
from ..session.step import Step
from ..session.stopping import Stopping
from ..session.stream import Emitter
from ..tracing import current_clock
from . import marks
from .criteria import build_stopping
from .engines import open_beside, open_engine
from .processors import build_links
from .request import Request


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
        told = marks.notes(request, links, generation_config)
        stopping, others = build_stopping(request, stopping_criteria, generation_config, input_ids.device)
        needs, chain = request.strategy.needs, Chain(links)
        retracts = bool(chain.retracting) and not needs & {"reorder", "level"}
        rewinds = retracts or "rollback" in needs
        copies = copies_of(generation_config)
        seeds: Tensor | None = None
        if request.seed is not None:  # refused before anything is opened, and by `explain` as well
            seeds = row_seeds(request.seed, input_ids.shape[0] // copies, copies, input_ids.device)
        engine, why = open_engine(request, input_ids, generation_config, kwargs, stopping.max_length, rewinds)
        try:
            if self.plan_only:
                return make_plan(request, links, stopping, others, engine, why, input_ids, told)
            for note in told:
                warnings.warn(note, UserWarning, stacklevel=2)
            session = open_session(
                request, input_ids, inputs_tensor, generation_config, kwargs, chain, stopping, engine, retracts, seeds
            )
            clock = current_clock()
            if clock is None:
                return decode(request, session, kwargs.get("encoder_outputs"))
            clock.planned(make_plan(request, links, stopping, others, engine, why, input_ids, told), request.model)
            with clock.session(session):
                return decode(request, session, kwargs.get("encoder_outputs"))
        finally:
            engine.close()


def copies_of(config: Any) -> int:
    """How many rows each input has."""
    return max(config.num_beams or 1, config.num_return_sequences or 1)


def make_plan(
    request: Request,
    links: list[Link],
    stopping: Stopping,
    criteria: list[str],
    engine: Engine,
    why: str,
    ids: Tensor,
    notes: tuple[str, ...] = (),
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
        notes=(
            *notes,
            *(
                f"{one.name} needs the chosen tokens on the host, which waits for them in each step"
                for one in links
                if one.processor.waits
            ),
        ),
    )


def open_session(
    request: Request, input_ids: Tensor, inputs_tensor: Tensor | None, config: Any, kwargs: dict[str, Any],
    chain: Chain, stopping: Stopping, engine: Engine, retracts: bool, seeds: Tensor | None,
) -> Session:  # fmt: skip
    """A session ready to run."""
    model, device = request.model, input_ids.device
    rows, prompt = input_ids.shape
    copies = copies_of(config)
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
    if seeds is not None:
        noise = SeededNoise(seeds)
    else:
        if world > 1:
            share_state(device)
        noise = TorchNoise(rows, device)
    _, pad = seam.special_tokens(config)
    emitter = None
    if request.streamer is not None:
        beams = (config.num_beams or 1) > 1
        if beams and (config.num_return_sequences or 1) > 1:
            raise ParameterError("a streamer takes one result for each input; leave out num_return_sequences")
        emitter = Emitter(request.streamer, input_ids[::copies] if beams else input_ids, pad or 0)
    relay = request.registry.hooks()
    cancel = request.cancel
    text = model.config.get_text_config(decoder=True)
    encoder = None
    if model.config.is_encoder_decoder and inputs_tensor is not None:
        read = inputs_tensor.repeat_interleave(rows // inputs_tensor.shape[0], 0)
        encoder = {"inputs": read, "attention_mask": kwargs.get("attention_mask")}
    rewinds = "rollback" in request.strategy.needs
    session = Session(
        model=model, tokenizer=request.tokenizer, config=config, engine=engine, history=history, chain=chain,
        stopping=stopping, noise=noise, recorder=Recorder(config, model.config.is_encoder_decoder), emitter=emitter,
        inputs=inputs, pad_token_id=pad, vocab_size=int(text.vocab_size),
        encoder_input_ids=inputs_tensor if model.config.is_encoder_decoder else None,
        cancelled=cancel.is_set if cancel is not None else None,
        agree=_agreement(device) if world > 1 else None,
        peers=(lambda finished: seam.peers_unfinished(model, finished, device)) if request.synced else None,
        drafts=rewinds or chain.proposes, rewinds=rewinds or engine.name != "portable", retracts=retracts,
        open_beside=lambda other, ids, mask, longest: open_beside(
            other, ids, mask, longest, retracts or rewinds, request.compile, encoder
        ),
        assistant_model=request.assistant_model, assistant_tokenizer=request.assistant_tokenizer,
        observe=(lambda s, step: _observe(relay, s, step)) if relay.has("genmode_session_step") else None,
    )  # fmt: skip
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
    clock = current_clock()
    strategy: Strategy = request.strategy(request.params)
    strategy = strategy if clock is None else clock.strategy(strategy)
    relay = request.registry.hooks()
    failure: BaseException | None = None
    try:
        with torch.no_grad(), seam.decode_mode(session.model):
            session.chain.begin(session)
            session.stopping.begin(session)
            if session.emitter is not None:
                session.emitter.begin()
            if relay.has("genmode_session_begin"):
                relay.call("genmode_session_begin", session=session)
            strategy.decode(session, request.params)
            session.flush()
            session.chain.conclude(session.sequences())
        if session.retracts and session.recorder.active:
            session.recorder.trim(session.decoded)
        return session.recorder.result(session.sequences(), encoder, cached(session), session.beams)
    except DecodingError as error:
        failure = _completed(error, session)
        raise
    except (GenmodeError, torch.OutOfMemoryError, KeyboardInterrupt) as error:
        failure = error
        error.sequences = session.sequences()  # type: ignore[union-attr]
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
        try:
            close(session, relay, failure)
        finally:
            failure = None  # this frame is part of the error's traceback, which would keep itself and the session alive


def close(session: Session, relay: Relay, failure: BaseException | None) -> None:
    """End everything that has begun, whatever fails on the way.

    Raises:
        GenmodeError: the first thing that failed; if the call has failed already, a warning says it instead.
    """
    endings = [*(engine.close for engine in session.beside), *session.chain.endings(), *session.stopping.endings()]
    if relay.has("genmode_session_end"):
        endings.append(lambda: relay.call("genmode_session_end", session=session, error=failure))
    troubles: list[GenmodeError] = []
    for ending in endings:
        try:
            ending()
        except GenmodeError as error:
            troubles.append(error)
    session.release()
    try:
        if troubles and failure is None:
            troubles[0].sequences = session.sequences()  # type: ignore[attr-defined]
            raise troubles.pop(0)
        while troubles:
            warnings.warn(f"after the call had failed, {troubles.pop(0)}", RuntimeWarning, stacklevel=2)
    finally:
        troubles.clear()  # their tracebacks have this frame, and would keep each other alive


def cached(session: Session) -> Any:
    """The cache for the output class, if there will be one."""
    return session.engine.cache() if session.recorder.returns_dict else None


def _completed(error: DecodingError, session: Session) -> DecodingError:
    if error.sequences is None:
        error.sequences = session.sequences()
    if error.step is None:
        error.step = session.step_index
    return error
