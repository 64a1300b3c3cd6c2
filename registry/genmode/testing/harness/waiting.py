"""Waits for a device, told by the device: on CUDA, torch raises where the host would wait (its sync debug mode).

Where there is no CUDA device, or a case's own models are on the CPU, `guard` tells them by what the code does.
"""

from __future__ import annotations

import functools
import os
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch import cuda
from transformers import PreTrainedModel

from ...contract import Session, Step
from ...errors import DecodingError
from . import models
from .case import Case
from .check import fail
from .guard import HOST, TRANSFORMERS, home, observed
from .probes import Sampling

FIRST = 2
"""The first step that must not wait: before it the host may capture what it replays later."""
SAID = "synchronizing CUDA operation"
"""What torch says of a wait."""


@functools.cache
def moved(family: str) -> Any:
    """The tiny model of a family, on the device."""
    return models.fresh(family).to("cuda")


def is_there(model: Any) -> bool:
    """Whether a model is on a CUDA device."""
    return bool(model.device.type == "cuda")


def model_there(case: Case) -> Any | None:
    """The model that a case's calls run on a CUDA device; None without one, or if the case's models are elsewhere."""
    if not cuda.is_available():
        return None
    beside = [one for one in (*case.values.values(), *case.further().values()) if isinstance(one, PreTrainedModel)]
    model = moved(case.family) if case.model is None else case.tiny()
    return model if all(map(is_there, [model, *beside])) else None


class StrictSession:
    """A session as a strategy sees it: from the third step on, a wait in what the strategy calls is an error.

    The forward, and what the host does between the steps, are not looked at.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def steps(self, **options: Any) -> Iterator[Step]:
        """The session's steps."""
        for step in self._session.steps(**options):
            cuda.set_sync_debug_mode("error" if step.index >= FIRST else "default")
            yield step
            cuda.set_sync_debug_mode("default")


@contextmanager
def strict() -> Generator[None, None, None]:
    """Within the block torch's mode may be changed; it is put back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the mode is a prototype
        try:
            yield
        finally:
            cuda.set_sync_debug_mode("default")


def never_waits(case: Case, model: Any, **flags: Any) -> str:
    """Fail if the component waits for the device in a call of `model`, which is there; `flags` are the call's."""
    inputs = {key: value.to(model.device) for key, value in case.inputs().items()}
    case.generate(inputs, model=model, **flags)  # what is done once is done
    strategy = observed(case.component if case.kind == "strategies" else Sampling, StrictSession)
    try:
        with strict():
            case.generate(inputs, model=model, strategy=strategy, **flags)
    except DecodingError as error:
        place = blamed(error.__cause__, home(case.component))
        if SAID not in str(error.__cause__) or place is None:
            raise
        fail(f"waits for the device at {place}; use torch.where, gather and masked_fill, or host_sync.surely_none")
    return f"never waits for {cuda.get_device_name(model.device)}"


def blamed(error: BaseException | None, root: str) -> str | None:
    """Where the component's code called what failed; None if the host or transformers did."""
    for frame, line in reversed(list(traceback.walk_tb(None if error is None else error.__traceback__))):
        file = frame.f_code.co_filename
        if file.startswith(root):
            return f"{os.path.basename(file)}:{line} in {frame.f_code.co_name}"
        if file.startswith((HOST, TRANSFORMERS)):
            return None
    return None
