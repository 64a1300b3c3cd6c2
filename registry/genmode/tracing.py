"""A trace of calls: what resolved each, what ran in which order, and how long each part took.

    with genmode.trace() as traced:
        genmode.generate(model, **inputs, top_p=0.9, do_sample=True)
    print(traced)

The calls of the block are traced, those of `genmode.stream` too, but not calls of other threads. Times are the
host's clock (`time.perf_counter`), each part without the parts that it calls, so that they add up to the whole. On a
CUDA device work is queued: a part's time is that of queueing it, or of waiting for what was queued before.

Outside such a block a call asks one context variable and does nothing else. Inside, the call is built of stand-ins that
start and stop the clock around the objects that they stand for; results stay the same.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import pydantic

from .session.chain import Chain

if TYPE_CHECKING:
    from .plan import Plan

_FORWARDS = ("prefill", "forward", "tree", "look", "probe")


class Part(pydantic.BaseModel):
    """One part of a call.

    Attributes:
        kind: "prepare" for what comes before the session (resolving the call, transformers' preparation of inputs,
            an encoder), "session" for the host's own work, "strategy" for `decode` and what it does with tensors
            (a commit's bookkeeping included); "forward", "processor", "criterion", "streamer", "hooks".
        name, origin: of a component, its name and who provides it.
        stage: of a processor, its stage.
        runs: how often it was entered.
        seconds: how long it ran, without the parts that it called.
    """

    kind: str
    name: str = ""
    origin: str = ""
    stage: str = ""
    runs: int = 0
    seconds: float = 0.0


class TracedCall(pydantic.BaseModel):
    """One call. Parts are in the order in which they are prepared and run; processors in that of the chain.

    Attributes:
        strategy, origin, why, engine, engine_why, criteria, rows: as in `genmode.Plan`.
        steps: how many steps were decoded.
        clock: "host" where the device waits for nobody; "host, device queued" on CUDA.
        seconds: from the arguments to the result.
        error: what ended the call; empty if it ended well.
    """

    strategy: str = ""
    origin: str = ""
    why: str = ""
    engine: str = ""
    engine_why: str = ""
    criteria: list[str] = []
    rows: int = 0
    steps: int = 0
    clock: str = "host"
    seconds: float = 0.0
    error: str = ""
    parts: list[Part] = []


class Trace(pydantic.BaseModel):
    """The calls of a `with genmode.trace()` block; `print` shows them as tables, `model_dump` as plain data."""

    calls: list[TracedCall] = []

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, highlight=False, color_system=None)
        with console.capture() as captured:
            for call in self.calls:
                console.print(_table(call))
        return captured.get().rstrip()


class Watched(NamedTuple):
    """What a session is built of, as far as its time is taken."""

    engine: Any
    chain: Chain
    criteria: list[Any]
    streamer: Any
    observe: Callable[..., None] | None
    open_engine: Callable[..., Any]


class Clock:
    """Charges time to the part that is running; parts may be nested."""

    def __init__(self) -> None:
        self.call = TracedCall()
        self._running: list[Part] = []
        self._since = self._begin = time.perf_counter()

    def part(self, kind: str, name: str = "", origin: str = "", stage: str = "") -> Part:
        """A new part at the end of the list."""
        # pydantic copies lists that it is given, hence no list of our own beside
        self.call.parts.append(made := Part(kind=kind, name=name, origin=origin, stage=stage))
        return made

    def enter(self, part: Part) -> None:
        """The part begins to run."""
        now = time.perf_counter()
        if self._running:
            self._running[-1].seconds += now - self._since
        else:
            self._begin = now
        self._running.append(part)
        part.runs += 1
        self._since = now

    def leave(self) -> None:
        """The part that began last is done."""
        now = time.perf_counter()
        self._running.pop().seconds += now - self._since
        self._since = now

    def timed(self, part: Part, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time charged to the part."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return run

    def finish(self) -> None:
        """The call has ended."""
        while self._running:
            self.leave()
        self.call.seconds = self._since - self._begin
        self.call.parts = [part for part in self.call.parts if part.runs or part.kind != "forward"]

    # Where the call passes ---------------------------------------------------------------------------

    def planned(self, plan: Plan, model: Any) -> None:
        """The call is resolved; nothing has been decoded."""
        call = self.call
        for name in ("strategy", "origin", "why", "engine", "engine_why", "rows"):
            setattr(call, name, getattr(plan, name))
        call.criteria = list(plan.criteria)
        if model.device.type == "cuda":
            call.clock = "host, device queued"

    def strategy(self, strategy: Any) -> Any:
        """A stand-in for the strategy whose `decode` keeps the time."""
        return Timed(strategy, self, self.part("strategy", self.call.strategy, self.call.origin), ("decode",))

    @contextmanager
    def session(self) -> Generator[None]:
        """The session runs inside this block."""
        self.enter(self.part("session"))
        try:
            yield
        finally:
            self.leave()

    def watched(self, made: Watched) -> Watched:
        """Stand-ins that keep the time, for what a session is built of."""
        forward, beside = self.part("forward"), self.part("forward", "beside the model")

        def open_engine(*args: Any) -> Any:
            return Timed(made.open_engine(*args), self, beside, _FORWARDS)

        chain = TracedChain(made.chain, self)
        criteria = [Timed(one, self, self.part("criterion", repr(one))) for one in made.criteria]
        streamer, observe = made.streamer, made.observe
        if streamer is not None:
            streamer = Timed(streamer, self, self.part("streamer", type(streamer).__name__))
        if observe is not None:
            observe = self.timed(self.part("hooks", "genmode_session_step"), observe)
        return Watched(Timed(made.engine, self, forward, _FORWARDS), chain, criteria, streamer, observe, open_engine)


class Timed:
    """Stands in for an object of the call and charges the time of its methods (`only` these) to a part."""

    def __init__(self, it: Any, clock: Clock, part: Part, only: tuple[str, ...] = ()) -> None:
        self._it, self._clock, self._part, self._only = it, clock, part, only

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._it, name)
        return self._clock.timed(self._part, value) if callable(value) and name in (self._only or (name,)) else value

    def __copy__(self) -> Timed:
        return Timed(copy.copy(self._it), self._clock, self._part, self._only)

    def __repr__(self) -> str:
        return repr(self._it)


class TracedChain(Chain):
    """The chain of a call whose processors keep the time."""

    def __init__(self, chain: Chain, clock: Clock) -> None:
        super().__init__(chain.links)
        stands: dict[int, Any] = {
            id(one.processor): Timed(
                one.processor, clock, clock.part("processor", one.name, one.origin, one.stage.name.lower())
            )
            for one in chain.links
        }
        self.replaced(stands)

    def _failure(self, culprit: Any, method: str, error: Exception) -> Any:
        return super()._failure(getattr(culprit, "_it", culprit), method, error)


_current: ContextVar[Trace | None] = ContextVar("genmode_trace", default=None)
_clock: ContextVar[Clock | None] = ContextVar("genmode_trace_clock", default=None)


@contextmanager
def trace() -> Generator[Trace, None, None]:
    """Trace the calls of a `with` block; gives a `Trace` that fills as they end. Blocks may be nested."""
    token = _current.set(traced := Trace())
    try:
        yield traced
    finally:
        _current.reset(token)


def tracing() -> bool:
    """Whether calls are traced here."""
    return _current.get() is not None


@contextmanager
def traced_call() -> Generator[Clock]:
    """Trace one call into the trace in force."""
    outer, clock = _current.get(), Clock()
    token = _clock.set(clock)
    clock.enter(clock.part("prepare"))
    try:
        yield clock
    except BaseException as error:
        clock.call.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        clock.finish()
        _clock.reset(token)
        if outer is not None:
            outer.calls.append(clock.call)


def current_clock() -> Clock | None:
    """The clock of the traced call that is running here; None outside of one."""
    return _clock.get()


def _table(call: TracedCall) -> Any:
    from rich.table import Table

    title = f"strategy {call.strategy} ({call.origin}): {call.why}" if call.strategy else "not resolved"
    engine = f"engine {call.engine}" + (f": {call.engine_why}" if call.engine_why else "")
    lines = [title, engine, f"{call.rows} rows, {call.steps} steps, criteria {', '.join(call.criteria) or 'none'}"]
    lines += [f"error: {call.error}"] if call.error else []
    table = Table(title="\n".join(lines), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("part", "stage", "from"):
        table.add_column(name)
    for name in ("runs", "ms", "share"):
        table.add_column(name, justify="right")
    for part in call.parts:
        share = part.seconds / call.seconds if call.seconds else 0.0
        label = f"{part.kind} {part.name}".strip()
        table.add_row(label, part.stage, part.origin, str(part.runs), f"{1e3 * part.seconds:.2f}", f"{share:.0%}")
    table.add_row("all", "", "", "", f"{1e3 * call.seconds:.2f}", call.clock)
    return table
