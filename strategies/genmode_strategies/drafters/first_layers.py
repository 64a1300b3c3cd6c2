"""The first layers of a model as a model of its own, to draft for the whole one.

Zhang et al. 2023, "Draft & Verify", and Elhoushi et al. 2024, "LayerSkip": the norm and the head read the next
token off layer k. The short model shares every weight and every module with the whole one; only the modules
on the way to the list of layers are copied, without their parameters. It keeps a cache of its own. The whole
model is left as it is, so that other threads may use it meanwhile.

Not supported: encoder-decoder models, and models whose modules are wrapped (accelerate's hooks), since a wrapper
runs the whole model.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from torch import nn

import genmode

_made: weakref.WeakKeyDictionary[Any, dict[int, Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def first_layers(model: Any, count: int) -> Any:
    """The model that ends after `count` layers.

    Asked again for the same model, as long as its modules are the same, it is the same object.

    Raises:
        ParameterError: the model has not more than `count` layers.
        UnsupportedError: the model's layers cannot be told apart from the rest.
    """
    short = _shortened(model, count)
    with _lock:
        kept = _made.setdefault(model, {})
        if count not in kept or not _alike(kept[count], short):
            kept[count] = short
        return kept[count]


def check(model: Any, count: int) -> None:
    """Raise what `first_layers` would."""
    path = list(_path(model))
    total = len(list(path[-1][1].children()))
    if count >= total:
        raise genmode.ParameterError(
            f"assistant_early_exit={count}: {type(model).__name__} has {total} layers; "
            f"give a number from 1 to {total - 1}"
        )


def _path(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules from the model down to its list of layers.

    Raises:
        UnsupportedError: there is no such list, or a wrapper on the way.
    """
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    found = None
    if decoder is not None and not model.config.is_encoder_decoder:
        found = next(
            (
                (name, child)
                for name, child in decoder.named_children()
                if isinstance(child, nn.ModuleList) and len(child) == layers
            ),
            None,
        )
    place = next((name for name, module in model.named_modules() if module is decoder), None)
    if found is None or place is None:
        raise genmode.UnsupportedError(
            f"assistant_early_exit needs a decoder-only model with one list of layers, and {type(model).__name__} "
            "is not known to be one; draft with assistant_model or prompt_lookup_num_tokens instead"
        )
    current = model
    yield "", current
    for name in [*(part for part in place.split(".") if part), found[0]]:
        if "forward" in vars(current):
            raise genmode.UnsupportedError(
                f"assistant_early_exit cannot run a part of {type(model).__name__}, whose forward is wrapped; "
                "load it without device_map"
            )
        current = getattr(current, name)
        yield name, current


def _shortened(model: Any, count: int) -> Any:
    check(model, count)
    path = list(_path(model))
    configs: dict[int, Any] = {}
    config = configs[id(model.config)] = copy.deepcopy(model.config)
    text = config.get_text_config(decoder=True)
    configs[id(model.config.get_text_config(decoder=True))] = text
    text.num_hidden_layers = count
    kinds = vars(text).get("layer_types")  # where it is a property, as Mamba's, it follows the number of layers
    if kinds is not None:
        text.layer_types = list(kinds)[:count]
    below: nn.Module = nn.ModuleList(list(path[-1][1].children())[:count])
    below.training = path[-1][1].training
    for (_, module), (name, _) in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
        short = copy.copy(module)
        state: dict[str, Any] = short.__dict__
        state.pop("generate", None)  # of `genmode.attach`; it is bound to the whole model
        state["_modules"] = {**state["_modules"], name: below}
        own = state.get("config")
        if own is not None:
            state["config"] = configs.setdefault(id(own), copy.deepcopy(own))
        below = short
    return below


def _alike(one: Any, other: Any) -> bool:
    """Whether two short models run the same modules with the same configuration."""
    mine, theirs = list(one.modules()), list(other.modules())
    copied = {id(module) for short in (one, other) for _, module in _path(short)}
    return (
        len(mine) == len(theirs)
        and one.config.to_dict() == other.config.to_dict()
        and all(
            a is b or (id(a) in copied and id(b) in copied and _own_state(a) == _own_state(b))
            for a, b in zip(mine, theirs, strict=True)
        )
    )


def _own_state(module: nn.Module) -> tuple[Any, ...]:
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return (type(module), module.training, tuple(id(tensor) for tensor in tensors))
