"""Checks of strategies: what a call costs, what it touches, and how it fails."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ... import errors, host_sync
from ...contract import History, Kind, LogitsProcessor, Need, Session, Strategy
from ...plugins.parameters import flag_defaults
from ..harness.case import Case
from ..harness.check import check, fail, require
from ..harness.guard import ObservedSession, observed, watched
from ..harness.traces import (
    model_traces,
    nothing_left,
    quiet,
    same_state,
    shared_state,
    steady_memory,
    torch_traces,
    unchanged,
)
from ..harness.waiting import model_there, never_waits
from .strategy_results import SEEDS, SOME_ENDS, WITH_ENDS, same

FORWARDS, OPERATIONS = 4.0, 400
"""The most forwards a token, and operations of its own a step, that a strategy may take. Greedy takes 1 and 1."""


class Greedy(Strategy):
    """Greedy search, to measure by."""

    contract_version = 1

    def decode(self, session: Session, params: Any) -> None:
        for step in session.steps():
            step.commit(step.scores.argmax(-1))


@contextmanager
def forwards(model: Any) -> Generator[list[int], None, None]:
    """Counts the tokens that each forward of a model is fed."""
    fed: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        given = kwargs.get("decoder_input_ids", kwargs.get("input_ids", args[0] if args else None))
        fed.append(given.shape[1] if isinstance(given, Tensor) else 0)

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield fed
    finally:
        hook.remove()


@check(Kind.STRATEGIES)
def no_synchronisation(case: Case) -> str | None:
    """From the second step on the strategy's own code reads no tensor on the host, and does nothing whose result's size
    depends on values: on an accelerator the host would wait there in every step.

    Where there is a CUDA device, torch itself says so.
    """
    model = model_there(case)
    if model is not None:
        return never_waits(case, model, seed=SEEDS, eos_token_id=SOME_ENDS[::4])
    with host_sync.late_host(), watched(case.component) as seen:
        seen.looking = False
        strategy = observed(case.component, lambda session: ObservedSession(session, seen))
        case.generate(strategy=strategy, seed=SEEDS, eos_token_id=SOME_ENDS[::4])
    require(
        not seen.waits,
        f"waits for the device {len(seen.waits)} times, first by {'; '.join(list(dict.fromkeys(seen.waits))[:3])}; "
        "use torch.where, gather and masked_fill, or host_sync.surely_none",
    )
    return None


@check(Kind.STRATEGIES)
def late_result(case: Case) -> None:
    """The result is the same where the host learns of each step one step late, as it does from an accelerator."""
    for more in WITH_ENDS:
        expected = case.generate(seed=SEEDS, **more)
        with host_sync.late_host():
            same(expected, case.generate(seed=SEEDS, **more), "on a host that learns at once, then late")


def costs(case: Case, copies: int, count: int) -> tuple[int, int]:
    """Forwards, and operations of the strategy's own, of one call with so many copies of two prompts."""
    inputs = {key: value.repeat(copies, 1) for key, value in case.inputs(rows=2).items()}
    with forwards(case.tiny()) as fed, watched(case.component) as seen:
        case.generate(inputs, seed=7, max_new_tokens=count)
    return len(fed), seen.own


@check(Kind.STRATEGIES)
def cost_against_greedy(case: Case) -> str:
    """A token takes few forwards, and a step few operations of the strategy's own. Counted, not timed."""
    (fewer, own_fewer), (more, own_more) = costs(case, 1, 6), costs(case, 1, 14)
    per_token, per_step = (more - fewer) / 8, (own_more - own_fewer) / max(1, more - fewer)
    told = f"{per_token:.2f} forwards a token, {per_step:.1f} operations of its own a forward; greedy takes 1 and 1"
    require(per_token <= FORWARDS, f"{told}; at most {FORWARDS} forwards are allowed")
    require(per_step <= OPERATIONS, f"{told}; at most {OPERATIONS} operations are allowed")
    return told


@check(Kind.STRATEGIES)
def cost_of_rows(case: Case) -> str:
    """More rows take no more operations: no Python loop over the batch."""
    few, many = (_per_forward(costs(case, copies, 8)) for copies in (1, 4))
    require(
        many < few + 4, f"{few:.1f} operations a forward for 2 rows, {many:.1f} for 8; do all rows in one operation"
    )
    return f"{few:.1f} operations a forward for 2 rows, {many:.1f} for 8"


@check(Kind.STRATEGIES)
def cost_of_length(case: Case) -> str:
    """Later steps take no more operations than early ones: nothing is done anew for every token so far."""
    short, middle, long = (costs(case, 1, count) for count in (6, 14, 30))
    early = (middle[1] - short[1]) / max(1, middle[0] - short[0])
    late = (long[1] - middle[1]) / max(1, long[0] - middle[0])
    require(late < 1.25 * early + 4, f"{early:.1f} operations a forward early, {late:.1f} later")
    return f"{early:.1f} operations a forward early, {late:.1f} later"


def _per_forward(cost: tuple[int, int]) -> float:
    return cost[1] / max(1, cost[0])


@check(Kind.STRATEGIES)
def no_state_between_calls(case: Case) -> None:
    """A call does not change the next one: nothing is kept on the class or in the module."""
    first = case.generate(seed=SEEDS)
    before = shared_state(case.component)
    case.generate(case.inputs(rows=2, length=6), seed=4, max_new_tokens=5)
    same_state(case.component, before)
    same(first, case.generate(seed=SEEDS), "the same call again, another in between")


@check(Kind.STRATEGIES)
def no_memory_between_runs(case: Case) -> str:
    """Tensors of a call are freed when it ends."""
    inputs = case.inputs(rows=2)
    return steady_memory(lambda: case.generate(inputs, seed=SEEDS[:2], max_new_tokens=4))


@check(Kind.STRATEGIES)
def no_memory_without_collection(case: Case) -> None:
    """Session and tensors are freed by the end of the call, Python's garbage collector being off: a cache of a device's
    memory that hangs in a cycle of references is freed at some later time, or too late.
    """
    inputs = case.inputs(rows=2)
    nothing_left(lambda: case.generate(inputs, seed=SEEDS[:2], max_new_tokens=4))


@check(Kind.STRATEGIES)
def model_untouched(case: Case) -> None:
    """The model is left as it was: weights, mode, hooks, configs, attributes."""
    model = case.fresh()
    before = model_traces(model)
    case.generate(model=model, seed=SEEDS, max_new_tokens=3)
    unchanged(before, model_traces(model), "the model")


@check(Kind.STRATEGIES)
def torch_untouched(case: Case) -> None:
    """torch's settings are left as they were, the grad mode among them."""
    before = torch_traces()
    try:
        case.generate(seed=SEEDS, max_new_tokens=3)
        unchanged(before, torch_traces(), "torch")
    finally:
        torch.set_grad_enabled(before["grad mode"])
        torch.set_default_dtype(before["default dtype"])
        torch.use_deterministic_algorithms(before["deterministic algorithms"])


@check(Kind.STRATEGIES)
def no_gradients(case: Case) -> None:
    """No forward records gradients, which would keep every activation of the call in memory."""
    wanted: list[bool] = []
    hook = case.tiny().register_forward_pre_hook(lambda module, args: wanted.append(torch.is_grad_enabled()))
    with torch.enable_grad():
        try:
            result = case.generate(seed=SEEDS, max_new_tokens=3)
        finally:
            hook.remove()
    require(not any(wanted), "a forward ran with gradients; leave torch.enable_grad alone")
    require(not result.requires_grad, "the result requires gradients")


@check(Kind.STRATEGIES)
def silence(case: Case) -> None:
    """An ordinary call prints nothing and warns of nothing."""
    quiet(lambda: case.generate(seed=SEEDS, max_new_tokens=4))


@check(Kind.STRATEGIES)
def declared_flags(case: Case) -> None:
    """`flags` names flags of transformers, and `needs` what a session knows."""
    cls: Any = case.component
    require(isinstance(cls.flags, Mapping), f"flags is {type(cls.flags).__name__}; it has to be a mapping")
    strange = sorted(set(cls.flags) - set(flag_defaults()))
    require(not strange, f"flags: {', '.join(strange)} is no flag of transformers")
    unknown = sorted(set(cls.needs) - set(Need))
    require(not unknown, f"needs: {', '.join(unknown)} is unknown; there are {', '.join(sorted(Need))}")


@check(Kind.STRATEGIES)
def failures_pass(case: Case) -> None:
    """An error of the model or of a processor ends the call by DecodingError, with its cause and what was decoded."""

    class Breaks(LogitsProcessor):
        contract_version = 1
        name = "breaks"

        def process(self, scores: Tensor, history: History) -> Tensor:
            if history.tokens.shape[1] > history.prompt + 1:
                raise ZeroDivisionError("on purpose")
            return scores

    try:
        case.generate(seed=SEEDS, processors=[Breaks()])
    except errors.DecodingError as error:
        require(isinstance(error.__cause__, ZeroDivisionError), f"the cause is lost: {error.__cause__!r}")
        require(error.component == "breaks", f"the error blames {error.component!r} for a processor's failure")
        require(error.sequences is not None, "what was decoded is lost")
        return
    fail("a processor failed and the call went on; let errors pass")
