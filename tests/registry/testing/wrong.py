"""Components that are wrong on purpose, each in the one way that the check of its name is there to catch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, field_validator

import genmode


def variant(base: type[Any], **members: Any) -> type[Any]:
    """A component like `base`, with some members of its own."""
    return type(base.__name__, (base,), {"__doc__": "Wrong in one way only.", "name": base.name, **members})


class Undescribed(genmode.Params):
    kit_alpha: float = Field(1.0, ge=0)


class Required(genmode.Params):
    kit_alpha: float = Field(ge=0, description="strength")


class Unbounded(genmode.Params):
    kit_alpha: float = Field(1.0, allow_inf_nan=True, description="strength")


class Lenient(genmode.Params):
    model_config = ConfigDict(extra="ignore", frozen=True)
    kit_alpha: float = Field(1.0, ge=0, description="strength")


class Thawed(genmode.Params):
    model_config = ConfigDict(extra="forbid", frozen=False)
    kit_alpha: float = Field(1.0, ge=0, description="strength")


def double(value: float) -> float:
    return 2 * value


class Doubling(genmode.Params):
    kit_alpha: Annotated[float, AfterValidator(double)] = Field(1.0, ge=0, description="strength")


class Shadowed(genmode.Params):
    seed: int = Field(1, ge=0, description="never reached")


class Swallowing(genmode.Params):
    kit_alpha: float = Field(1.0, ge=0, le=5, description="strength")

    @field_validator("kit_alpha", mode="wrap")
    @classmethod
    def at_any_price(cls, value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValueError:
            return 1.0


def locked(self: Any, params: Any = None, **values: Any) -> None:
    genmode.Component.__init__(self, params, **values)
    self.lock = threading.Lock()


def demanding(self: Any, must: int, params: Any = None, **values: Any) -> None:
    genmode.Component.__init__(self, params, **values)


def of_every_kind(base: type[Any], taken: str) -> Mapping[str, type[Any]]:
    """Wrong declarations, by the check that catches them; `taken` is the name of a built-in."""
    return {
        "contract_version": variant(base, contract_version=0),
        "name": variant(base, name="Not_Plain"),
        "found_by_name": variant(base, name=taken),
        "documentation": variant(base, __doc__=""),
        "parameters_documented": variant(base, Params=Undescribed),
        "parameters_have_defaults": variant(base, Params=Required),
        "parameters_refuse_nonsense": variant(base, Params=Unbounded),
        "parameters_refuse_strangers": variant(base, Params=Lenient),
        "parameters_frozen": variant(base, Params=Thawed),
        "parameters_survive_saving": variant(base, Params=Doubling),
        "parameters_reachable": variant(base, Params=Shadowed),
        "copies_and_pickles": variant(base, __init__=locked),
        "signature": variant(base, __init__=demanding),
    }
