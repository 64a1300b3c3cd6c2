"""transformers' generation flags: their names, defaults, and the classes that it builds of them."""

from __future__ import annotations

from typing import Any, cast

from transformers import GenerationConfig
from transformers.generation import logits_process, stopping_criteria


def generation_class(name: str) -> type | None:
    """transformers' own logits processor or stopping criterion of that name; None if it has none."""
    found = getattr(logits_process, name, None) or getattr(stopping_criteria, name, None)
    return found if isinstance(found, type) else None


def is_own(thing: Any, *names: str) -> bool:
    """Whether an object is of one of these classes of transformers itself, not of one that is only called so."""
    return type(thing).__name__ in names and type(thing) is generation_class(type(thing).__name__)


def default_flags() -> dict[str, Any]:
    """Every key of transformers' generation config with its default in `generate`."""
    keys = {key: None for key in vars(GenerationConfig()) if not key.startswith("_")}
    return {**keys, **cast("Any", GenerationConfig)._get_default_generation_params()}


def special_tokens(config: Any) -> tuple[list[int], int | None]:
    """The ids that end a row and the id that pads it, as `generate` settled them for this call."""
    eos, pad = config._eos_token_tensor, config._pad_token_tensor
    return ([] if eos is None else [int(i) for i in eos.tolist()], None if pad is None else int(pad))
