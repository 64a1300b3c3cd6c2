"""From the inputs that transformers prepared to a result: builds the session, runs the strategy.

`Loop` is the callable that goes to `model.generate(custom_generate=...)`. It carries what the callable
form drops: streamer, tokenizer and the models beside the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..contract.component import shown
from ..contract.drafter import Drafter
from ..contract.processor import Stage
from ..contract.strategy import Strategy
from ..contract.traits import Need, Trait
from ..engines.engine import Engine
from ..errors import DecodingError, GenmodeError, ParameterError
from ..hf import flags, generate
from ..plan import Part, Plan
from ..plugins.hooks import Relay
from ..session.backtrack import Backtracking
from ..session.chain import Chain
from ..session.context import CallContext
from ..session.noise import Noise, SeededNoise, TorchNoise, row_seeds, share_state
from ..session.outputs import Recorder
from ..session.population import follow
from ..session.session import DecodingSession
from ..session.state import Abilities, DecodeState, Given, Surroundings, Vocabulary
from ..session.stopping import Stopping, TransformersCriterion
from ..session.stream import Emitter
from ..session.token_buffer import TokenBuffer
from ..tracing import Clock, Watched, current_clock
from . import marks
from .criteria import build_stopping
from .engines import open_engine, open_side_engine
from .padding import check_padding
from .processors import build_links
from .request import Request


class Prepared(NamedTuple):
    """What transformers prepared."""

    ids: Tensor
    """`[rows, length]`, long; decoder ids where there is an encoder."""
    encoder_inputs: Tensor | None
    config: Any
    kwargs: dict[str, Any]
    inputs: int
    """How many inputs there are."""
    copies: int
    """How many rows each input starts with."""

    @property
    def sources(self) -> Tensor | None:
        """`[rows]`, long: which prepared row each row is at first; None where they are the same."""
        rows = len(self.ids)
        if rows == self.inputs * self.copies:
            return None
        return torch.arange(rows, device=self.ids.device).repeat_interleave(self.inputs * self.copies // rows)

    @property
    def encoder_ids(self) -> Tensor | None:
        """`encoder_inputs` with -1 in padding, where they are ids."""
        ids, mask = self.encoder_inputs, self.kwargs.get("attention_mask")
        if ids is None or ids.is_floating_point() or mask is None or mask.shape[1:] != ids.shape[1:]:
            return ids
        return ids.masked_fill(mask[:: len(mask) // len(ids)].to(ids.device) == 0, -1)


class Parts(NamedTuple):
    """What a call is built of."""

    chain: Chain
    stopping: Stopping
    criteria: list[str]
    """The criteria in words."""
    engine: Engine
    engine_why: str
    notes: tuple[str, ...]


class Loop:
    """Decodes one request, or plans it, when transformers calls it with the prepared inputs."""

    def __init__(self, request: Request, plan_only: bool = False) -> None:
        self.request, self.plan_only = request, plan_only
        self.called = False
        self.state: DecodeState | None = None

    def hand_over(self, error: KeyboardInterrupt) -> None:
        """What has been decoded goes with an interrupt, wherever in the call it came once decoding had begun."""
        if self.state is not None and not hasattr(error, "sequences"):
            error.sequences = self.state.sequences()  # type: ignore[attr-defined]

    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        inputs_tensor: Tensor | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Run the loop; the arguments are those of transformers' decoding methods."""
        request, self.called = self.request, True
        if model is not request.model:  # a wrapper's `generate`, as peft's, calls that of the model inside
            request = replace(request, model=model)
        kwargs.pop("synced_gpus", None)
        copies = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
        prepared = Prepared(
            input_ids, inputs_tensor, generation_config, kwargs, len(input_ids) // copies, copies * request.copies
        )
        links = build_links(request, logits_processor)
        notes = marks.notes(request, links, generation_config)
        stopping, criteria = build_stopping(request, stopping_criteria, generation_config, input_ids.device)
        check_padding(request.model, generation_config, stopping, prepared.inputs * prepared.copies)
        needs, chain = request.needs, Chain(links)
        backtracks = bool(chain.backtrackers) and not needs & {Need.REORDER, Need.LEVEL}
        rewinds = backtracks or Need.ROLLBACK in needs
        noise = open_noise(request, prepared)  # a wrong seed is refused before anything is opened, and by `explain` too
        engine, why = open_engine(request, input_ids, generation_config, kwargs, stopping.max_length, rewinds)
        generation_config.num_return_sequences = request.results
        parts = Parts(chain, stopping, criteria, engine, why, notes)
        try:
            clock = current_clock()
            if self.plan_only:
                return make_plan(request, parts, prepared)
            for note in notes:
                warnings.warn(note, UserWarning, stacklevel=2)
            abilities = Abilities(
                rewinds="rollback" in needs or engine.name != "portable",
                drafts="rollback" in needs or chain.may_force,
                backtracks=backtracks,
                population=Need.POPULATION in needs,
                rests=self._rests(engine, generation_config, needs),
                probes=bool(probing(parts)),
            )
            if clock is None:
                return run(request, prepared, parts, noise, abilities, self)
            clock.planned(make_plan(request, parts, prepared), request.model)
            with clock.session():
                return run(request, prepared, parts, noise, abilities, self, clock)
        finally:
            engine.close()

    def _rests(self, engine: Engine, config: Any, needs: frozenset[Need]) -> bool:
        """Whether rows that have ended may leave the forward: nobody reads its outputs, and no row comes back."""
        read = config.return_dict_in_generate or needs & {Need.HIDDEN_STATES, Need.ATTENTIONS}
        return engine.name == "static" and not read and not needs >= {Need.POPULATION, Need.ROLLBACK}


def make_plan(request: Request, parts: Parts, prepared: Prepared) -> Plan:
    """What the call resolved to."""
    infos = [info for info in request.registry.components("strategies") if info.name == request.name]
    origin = f"{infos[0].distribution} {infos[0].version}".strip() if infos else "this program"
    links = parts.chain.links
    waiting = [one.name for one in links if Trait.HOST_SYNC in one.processor.traits]
    return Plan(
        strategy=request.name,
        origin=origin,
        why=request.why,
        parameters={key: shown(key, value) for key, value in request.params.model_dump().items()},
        processors=tuple(
            Part(one.name, Stage(one.stage).name.lower(), repr(one.processor), one.origin) for one in links
        ),
        criteria=tuple(parts.criteria),
        engine=parts.engine.name,
        engine_why=parts.engine_why,
        rows=prepared.inputs * prepared.copies,
        random="torch's generator" if request.seed is None else "a seed for each row",
        drafter="" if request.drafting.drafter is None else repr(request.drafting.drafter),
        verification=request.drafting.told,
        notes=(
            *parts.notes,
            *request.drafting.notes(),
            *(f"{name} needs the chosen tokens on the host, which waits for them in each step" for name in waiting),
            *(f"{name} asks the model what would follow, a forward each time" for name in probing(parts)),
        ),
    )


def probing(parts: Parts) -> list[str]:
    """Names of processors and criteria that ask the model what would follow."""
    components = [*(one.processor for one in parts.chain.links), *parts.stopping.others]
    return [one.name for one in components if Trait.PROBES in one.traits]


def open_noise(request: Request, prepared: Prepared) -> Noise:
    """Where the call draws its random numbers from."""
    device = prepared.ids.device
    if request.seed is not None:
        return SeededNoise(row_seeds(request.seed, prepared.inputs, prepared.copies, device))
    return TorchNoise(prepared.inputs * prepared.copies, device)


def open_history(model: Any, prepared: Prepared, max_length: int) -> TokenBuffer:
    """The prompt, in a buffer with room for what is decoded."""
    ids = prepared.ids
    rows, prompt = ids.shape
    tokens = torch.zeros(rows, min(max_length, prompt + 4096), dtype=torch.long, device=ids.device)
    tokens[:, :prompt] = ids
    mask = prepared.kwargs.get("decoder_attention_mask" if model.config.is_encoder_decoder else "attention_mask")
    starts = torch.zeros(rows, dtype=torch.long, device=ids.device)
    if mask is not None and mask.dim() == 2 and mask.shape[1] == prompt:
        starts = (mask == 0).long().cumprod(1).sum(1).to(ids.device)
    history = TokenBuffer(tokens, None, starts, prompt, prompt)
    if prepared.sources is not None:
        history.select(prepared.sources)
    return history


def open_emitter(request: Request, prepared: Prepared, streamer: Any, pad: int | None) -> Emitter | None:
    """What feeds the streamer of the call, if it has one."""
    if streamer is None:
        return None
    beams = (prepared.config.num_beams or 1) > 1 or Need.POPULATION in request.strategy.needs
    if beams and (prepared.config.num_return_sequences or 1) > 1:
        raise ParameterError("a streamer takes one result for each input; leave out num_return_sequences")
    return Emitter(streamer, prepared.ids[:: len(prepared.ids) // prepared.inputs] if beams else prepared.ids, pad or 0)


def open_surroundings(
    request: Request, prepared: Prepared, open_engine: Callable[..., Engine]
) -> Surroundings:  # fmt: skip
    """What the call asks of the program and of other processes."""
    model, device = request.model, prepared.ids.device
    return Surroundings(
        open_engine,
        cancelled=request.cancel.is_set if request.cancel is not None else None,
        agree=_agreement(device) if generate.tensor_parallel_size(model) > 1 else None,
        peers=(lambda done: generate.peers_unfinished(model, done, device)) if request.synced else None,
    )


def opens_side_engines(request: Request, prepared: Prepared, rewinds: bool) -> Callable[..., Engine]:
    """Opens engines for models beside the first; one with an encoder reads what the first one's has read."""
    encoder: dict[str, Any] | None = None
    inputs, rows = prepared.encoder_inputs, prepared.inputs * prepared.copies
    if request.model.config.is_encoder_decoder and inputs is not None:
        read = inputs.repeat_interleave(rows // inputs.shape[0], 0)
        mask, sources = prepared.kwargs.get("attention_mask"), prepared.sources
        encoder = {"inputs": read, "attention_mask": mask if mask is None or sources is None else mask[sources]}

    cached = bool(prepared.kwargs.get("use_cache", True))

    def open_one(model: Any, ids: Tensor, mask: Tensor, longest: int) -> Engine:
        return open_side_engine(model, ids, mask, longest, rewinds, request.compile, encoder, cached)

    return open_one


def run(
    request: Request, prepared: Prepared, parts: Parts, noise: Noise, abilities: Abilities, loop: Loop,
    clock: Clock | None = None,
) -> Any:  # fmt: skip
    """Build the session, and decode.

    Args:
        loop: gets the state, so that an interrupt after decoding loses nothing either.
        clock: takes the time; None where nobody asks for it.
    """
    relay = request.registry.hooks()
    if request.seed is None and generate.tensor_parallel_size(request.model) > 1:
        share_state(prepared.ids.device)
    recorder = Recorder(prepared.config, request.model.config.is_encoder_decoder)
    for one in parts.stopping.others:
        if isinstance(one, TransformersCriterion):
            one.recorded = recorder.scores  # as transformers passes them
    opens = opens_side_engines(request, prepared, abilities.backtracks or "rollback" in request.needs)
    made = Watched(
        parts.engine, parts.chain, parts.stopping.others, request.streamer,
        relay_step(relay) if relay.has("genmode_session_step") else None, opens,
    )  # fmt: skip
    if clock is not None:
        made = clock.watched(made)
    state, observe = open_state(request, prepared, parts.stopping, noise, abilities, made, recorder), made.observe
    loop.state = state
    session = DecodingSession(state, None if observe is None else lambda step: observe(session, step))
    try:
        return decode(request, session, state, prepared.kwargs.get("encoder_outputs"), clock)
    finally:
        if clock is not None:
            clock.call.steps = state.step_index + 1


def open_state(
    request: Request, prepared: Prepared, stopping: Stopping, noise: Noise, abilities: Abilities, made: Watched,
    recorder: Recorder,
) -> DecodeState:  # fmt: skip
    """The state of a call that has not begun."""
    model, config = request.model, prepared.config
    stopping.others = made.criteria
    encodes = model.config.is_encoder_decoder
    history = open_history(model, prepared, stopping.max_length)
    _, pad = flags.special_tokens(config)
    backtracking = None
    if abilities.backtracks:
        backtracking = Backtracking(
            made.chain, history.prompt, history.rows, stopping.max_length, history.buffer.device
        )  # fmt: skip
    return DecodeState(
        given=Given(
            model, request.tokenizer, config, request.assistant_model, request.assistant_tokenizer,
            prepared.encoder_ids if encodes else None,
        ),
        vocabulary=Vocabulary(int(model.config.get_text_config(decoder=True).vocab_size), stopping.eos, pad),
        abilities=abilities,
        surroundings=open_surroundings(request, prepared, made.open_engine),
        engine=made.engine, history=history, chain=made.chain, stopping=stopping, noise=noise, recorder=recorder,
        emitter=open_emitter(request, prepared, made.streamer, pad),
        num_inputs=prepared.inputs, backtracking=backtracking, moved=prepared.sources,
    )  # fmt: skip


def relay_step(relay: Relay) -> Callable[..., None]:
    """Tells hook plugins of a step."""

    def tell(session: DecodingSession, step: Any) -> None:
        relay.call("genmode_session_step", session=session, step=step)

    return tell


def _agreement(device: torch.device) -> Callable[[bool], bool]:
    """All processes of a tensor-parallel group take the first one's word."""

    def agree(value: bool) -> bool:
        flag = torch.tensor([value], dtype=torch.uint8, device=device)
        torch.distributed.broadcast(flag, 0)
        return bool(flag.item())

    return agree


def decode(request: Request, session: DecodingSession, state: DecodeState, encoder: Any, clock: Clock | None) -> Any:
    """Run the strategy and return the result; what was decoded survives an error.

    Raises:
        DecodingError: with what was decoded so far and the original error as its cause.
    """
    strategy: Strategy = request.strategy(request.params)
    strategy.drafter, strategy.verification = request.drafting.drafter, request.drafting.verification
    strategy = strategy if clock is None else clock.strategy(strategy)
    relay = request.registry.hooks()
    failure: BaseException | None = None
    try:
        with torch.no_grad(), generate.decode_mode(request.model):
            context = CallContext(state)
            state.chain.begin(context)
            state.stopping.begin(context)
            if state.emitter is not None:
                state.emitter.begin()
            if relay.has("genmode_session_begin"):
                relay.call("genmode_session_begin", session=session)
            strategy.decode(session, request.params)
            session.flush()
            state.chain.on_finish(state.sequences())
        recorder = state.recorder
        if state.abilities.backtracks and recorder.active:
            recorder.trim(state.decoded)
        cache = None
        if recorder.returns_dict:
            follow(state)
            cache = state.engine.cache()
        return recorder.result(state.sequences(), encoder, cache, state.beams)
    except DecodingError as error:
        failure = _completed(error, state)
        raise
    except (GenmodeError, torch.OutOfMemoryError, KeyboardInterrupt) as error:
        failure = error
        error.sequences = state.sequences()  # type: ignore[union-attr]
        raise
    except Exception as error:
        failure = error
        raise _completed(
            DecodingError(
                f"strategy {request.name!r} failed at step {state.step_index}: {type(error).__name__}: {error}",
                component=request.name,
            ),
            state,
        ) from error
    finally:
        try:
            close(session, state, relay, failure, request.drafting.drafter)
        finally:
            failure = None  # this frame is part of the error's traceback, which would keep itself and the session alive


def close(
    session: DecodingSession, state: DecodeState, relay: Relay, failure: BaseException | None, drafter: Drafter | None
) -> None:  # fmt: skip
    """End everything that has begun, whatever fails on the way.

    Raises:
        GenmodeError: the first thing that failed; if the call has failed already, a warning says it instead.
    """
    endings = [*(engine.close for engine in state.side_engines), *state.chain.endings(), *state.stopping.endings()]
    if drafter is not None:
        endings.append(drafter.reset)
    if relay.has("genmode_session_end"):
        endings.append(lambda: relay.call("genmode_session_end", session=session, error=failure))
    troubles: list[GenmodeError] = []
    for ending in endings:
        try:
            ending()
        except GenmodeError as error:
            troubles.append(error)
    session.release()
    state.release()
    try:
        if troubles and failure is None:
            troubles[0].sequences = state.sequences()  # type: ignore[attr-defined]
            raise troubles.pop(0)
        while troubles:
            warnings.warn(f"after the call had failed, {troubles.pop(0)}", RuntimeWarning, stacklevel=2)
    finally:
        troubles.clear()  # their tracebacks have this frame, and would keep each other alive


def _completed(error: DecodingError, state: DecodeState) -> DecodingError:
    if error.sequences is None:
        error.sequences = state.sequences()
    if error.step is None:
        error.step = state.step_index
    return error
