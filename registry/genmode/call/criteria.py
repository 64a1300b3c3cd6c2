"""The stopping criteria of a call; length, time and end of sequence are the session's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StopStringCriteria

from ..contract import StoppingCriterion
from ..contract.component import shown
from ..contract.kinds import Kind
from ..errors import ParameterError
from ..hf import flags
from ..plugins.adoption import Adopters, adopted, adopters_of
from ..plugins.parameters import build_params, select
from ..session.stopping import Stopping, TransformersCriterion
from .request import Request


def build_stopping(
    request: Request, prepared: Sequence[Any], config: Any, device: torch.device
) -> tuple[Stopping, list[str]]:
    """The criteria of the call; length, time and end of sequence are the session's own."""
    eos, _ = flags.special_tokens(config)
    lengths: list[int] = []
    ends: list[int] = []
    times: list[str] = []
    deadline: float | None = None
    others: list[StoppingCriterion] = []
    adopters = adopters_of(request.registry, Kind.CRITERIA)
    for criterion in prepared:
        # An object that the caller gives takes the place of the one that transformers builds of the config.
        if flags.is_own(criterion, "MaxLengthCriteria"):
            lengths.append(criterion.max_length)
        elif flags.is_own(criterion, "EosTokenCriteria"):
            ends += [int(i) for i in criterion.eos_token_id.flatten().tolist()]
        elif flags.is_own(criterion, "MaxTimeCriteria"):
            deadline = time.monotonic() + criterion.max_time - max(0.0, time.time() - criterion.initial_timestamp)
            times.append(f"max_time({criterion.max_time} s)")
        else:
            others.append(_native(criterion, adopters, request.tokenizer))
    max_length = min(lengths, default=config.max_length)
    if set(ends) - set(eos):  # else as often as the config has each, which is how many candidates beams look at
        eos = list(dict.fromkeys(ends))
    config.max_length = max(config.max_length, max_length)  # engines make room for as much
    names = [f"max_length({max_length})"] + ([f"eos({eos})"] if eos else [])
    names += times
    if request.flags["stop_strings"] is not None:
        others.append(_stop_strings(request, adopters))
    for key in request.plugin_values:
        for info in request.registry.owners(key, request.named):
            if info.kind == Kind.CRITERIA and not any(one.name == info.name for one in others):
                others.append(_as_criterion(request, info.name))
    contributed = [one for one, _ in request.registry.hooks().contributions("genmode_criteria", request)]
    for given in (*request.criteria, *contributed):
        made = _as_criterion(request, given)
        if isinstance(made, TransformersCriterion):
            made = _native(made.call, adopters, request.tokenizer)
        others.append(made)
    names += [repr(one) for one in others]
    by_row = request.seed is not None or any(flags.is_own(one, "EosTokenCriteria") for one in prepared)
    return Stopping(max_length, deadline, eos, device, others, by_row), names


def _native(criterion: Any, adopters: Adopters, tokenizer: Any) -> StoppingCriterion:
    """What stands in for a transformers criterion, or that one as it is."""
    return adopted(criterion, adopters, tokenizer) or TransformersCriterion(criterion)


def _stop_strings(request: Request, adopters: Adopters) -> StoppingCriterion:
    strings = request.flags["stop_strings"]
    strings = [strings] if isinstance(strings, str) else list(strings)
    if request.tokenizer is None:
        raise ParameterError(f"stop_strings={strings!r} needs the tokenizer; pass tokenizer=")
    if not strings or any(not isinstance(one, str) or not one for one in strings):
        raise ParameterError(f"stop_strings={strings!r}: give one or more strings of at least one character")
    for cls in adopters.get("StopStringCriteria", ()):
        # built from the strings: transformers' own object takes seconds to make of a large vocabulary
        if issubclass(cls, StoppingCriterion) and "stop_strings" in cls.Params.model_fields:
            return cls(build_params(cls, {"stop_strings": strings}, request.registry.origin(cls)))
    theirs = StopStringCriteria(tokenizer=request.tokenizer, stop_strings=strings)
    return _native(theirs, adopters, request.tokenizer)


def _as_criterion(request: Request, given: Any) -> StoppingCriterion:
    if isinstance(given, str):
        given = request.registry.get(Kind.CRITERIA, given)
    if isinstance(given, type) and issubclass(given, StoppingCriterion):
        values = select(given, request.flags, request.plugin_values)
        return given(build_params(given, values, request.registry.origin(given)))
    if isinstance(given, StoppingCriterion):
        return given
    if callable(given):
        return TransformersCriterion(given)
    raise ParameterError(
        f"{shown('criteria', given)!r} is no criterion; give the name of one, a StoppingCriterion, or a callable"
    )
