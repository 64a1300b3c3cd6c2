"""What a run may leave behind: on the model, in torch, on the component, in memory."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from ...session.context import CallContext
from ...session.session import DecodingSession
from .check import fail, require


def model_traces(model: Any) -> dict[str, Any]:
    """All of a model that a call must leave as it is."""
    modules = list(model.modules())
    return {
        "training mode": [one.training for one in modules],
        "hooks": [_hooks(one) for one in modules],
        "modules": [id(one) for one in modules],
        "config": repr(model.config.to_dict()),
        "generation_config": repr(model.generation_config.to_dict()),
        "weights": [(name, one._version, id(one)) for name, one in model.named_parameters()],
        "requires_grad": [one.requires_grad for one in model.parameters()],
        "gradients": [one.grad is not None for one in model.parameters()],
        "buffers": [(name, one._version) for name, one in model.named_buffers()],
        "attributes": sorted(vars(model)),
        "forward": model.forward.__func__,
    }


def _hooks(module: torch.nn.Module) -> int:
    """How many hooks a module has, but for those by which transformers notes hidden states, and leaves for later."""
    kept: list[dict[int, Any]] = [vars(module)["_forward_hooks"], vars(module)["_forward_pre_hooks"]]
    found = [hook for hooks in kept for hook in hooks.values()]
    return sum(not str(getattr(one, "__module__", "")).startswith("transformers.") for one in found)


def torch_traces() -> dict[str, Any]:
    """Settings of torch that a call must leave as they are."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "number of threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "warning filters": len(warnings.filters),
    }


def unchanged(before: Mapping[str, Any], after: Mapping[str, Any], what: str) -> None:
    """Fail if any trace differs."""
    changed = [key for key in before if before[key] != after[key]]
    require(
        not changed, f"a call leaves another {', '.join(changed)} of {what}; put back what you change, in `finally`"
    )


def shared_state(component: type[Any]) -> dict[str, Any]:
    """What calls share: attributes of the class and its bases, and containers of the module."""
    found: dict[str, Any] = {}
    for cls in component.__mro__:
        home = cls.__module__
        if home.partition(".")[0] in ("builtins", "pydantic", "typing", "abc") or home.startswith("genmode.contract."):
            continue
        for key, value in vars(cls).items():
            if not key.startswith(("__", "_abc")) and key not in ("_public_name", "_own_name"):
                found[f"{cls.__name__}.{key}"] = _summary(value)
    for key, value in (
        vars(sys.modules.get(component.__module__, object())).items() if component.__module__ in sys.modules else ()
    ):
        if isinstance(value, (list, dict, set)) and not key.startswith("__"):
            found[key] = _summary(value)
    return found


def _summary(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Tensor):
        return (id(value), value._version)
    size = len(value) if isinstance(value, (list, dict, set)) else None
    return (id(value), size)


def same_state(component: type[Any], before: Mapping[str, Any]) -> None:
    """Fail if calls share something that changed."""
    after = shared_state(component)
    changed = sorted(key for key in {*before, *after} if before.get(key, ...) != after.get(key, ...))
    require(
        not changed,
        f"{', '.join(changed)} changed in a call; keep state on the object, made in begin() or decode(), and drop it in reset()",
    )


@contextlib.contextmanager
def _newcomers_alone() -> Generator[None, None, None]:
    """What is there already is left out of `gc.get_objects`, and need not be looked through."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def steady_memory(run: Callable[[], object]) -> str:
    """Fail if each further run leaves tensors behind."""
    run()  # caches may fill
    with _newcomers_alone():
        run()
        gc.collect()
        first = _alive(Tensor)
        run()
        run()
        gc.collect()
        last = _alive(Tensor)
    require(last < first + 2, f"2 more runs left {last - first} more tensors alive ({first}, then {last})")
    return f"{last} tensors alive after 3 runs"


def nothing_left(run: Callable[[], object]) -> None:
    """Fail if, Python's garbage collector being off, what a call lent to its components outlives it, or each further
    run leaves tensors.
    """
    run()  # caches may fill
    enabled = gc.isenabled()
    with _newcomers_alone():
        gc.disable()
        try:
            run()
            first = _alive(Tensor)
            run()
            run()
            lent, more = _alive((CallContext, DecodingSession)), _alive(Tensor) - first
        finally:
            if enabled:
                gc.enable()
    require(
        not lent and more <= 0,
        f"the garbage collector being off, {lent} contexts and sessions are alive after 3 calls, and 2 calls left {more} more "
        "tensors; forget in reset() what begin() got, and have no object refer back to the one that holds it",
    )


def _alive(kind: type | tuple[type, ...]) -> int:
    """How many objects of a class or its subclasses, or of some classes, there are."""
    return sum(issubclass(type(one), kind) for one in gc.get_objects())


def quiet(run: Callable[[], object]) -> None:
    """Fail if a run prints or warns."""
    out, err = io.StringIO(), io.StringIO()
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("always")
        run()
    said = (out.getvalue() + err.getvalue()).strip()
    if said:
        fail(f"it prints {said[:200]!r}; a library leaves that to its caller")
    told = [str(one.message) for one in caught]
    if told:
        fail(f"an ordinary call warns: {told[0][:200]}")
