"""The stopping criteria of a call; length, time and end of sequence are the session's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from .. import seam
from ..contract import StoppingCriterion
from ..errors import ParameterError
from ..session.stopping import Stopping, TransformersCriterion
from .request import Request, build_params


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
    for key in request.plugin_values:
        for info in request.registry.owners(key):
            if info.kind == "criteria" and not any(one.name == info.name for one in others):
                others.append(_as_criterion(request, info.name))
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
        values = {k: request.flags.get(k) for k in given.Params.model_fields}
        values |= {k: v for k, v in request.plugin_values.items() if k in given.Params.model_fields}
        return given(build_params(request.registry, given, values))
    if isinstance(given, StoppingCriterion):
        return given
    if callable(given):
        return TransformersCriterion(given)
    raise ParameterError(f"{given!r} is no criterion; give the name of one, a StoppingCriterion, or a callable")
