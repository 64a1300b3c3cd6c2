"""What all components have in common: a version of the contract, a name, parameters, and what they state of themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic

from ..errors import ParameterError
from .traits import Trait

CONTRACT_VERSION = 1
"""The contract that this host offers. It rises only when a plugin written for the last one would break."""

OLDEST_CONTRACT = 1
"""The oldest contract that this host still accepts: the one before, once there is one."""

_SECRET = re.compile(r"(^|_)(keys?|secrets?|password|passphrase)$", re.IGNORECASE)


HIDDEN = "***"
"""What is shown in place of a secret."""


def is_secret(key: str) -> bool:
    """Whether values of this key are never shown or saved: `key`, `secret`, `password`, or ending in `_key` …"""
    return _SECRET.search(key) is not None


def shown(key: str, value: Any) -> Any:
    """What may be shown of a parameter: the value, with stars in place of it or of what is a secret inside of it."""
    if value is not None and is_secret(key):
        return HIDDEN
    if isinstance(value, Mapping):
        inner: Mapping[Any, Any] = value
        return {k: shown(k if isinstance(k, str) else "", v) for k, v in inner.items()}
    if isinstance(value, list):
        return [shown("", one) for one in value]  # pyright: ignore[reportUnknownVariableType] - of anything
    if type(value) is tuple:
        return tuple(shown("", one) for one in value)  # pyright: ignore[reportUnknownVariableType]
    return value


class Params(pydantic.BaseModel):
    """Parameters of a component; every field is a key of the generation config.

    Declare each with a type, bounds, a default and one line of help::

        class Params(genmode.Params):
            alpha: float = pydantic.Field(0.6, ge=0, le=1, description="weight of the penalty")

    A key that neither the call nor a config sets keeps its default. The model is frozen, and refuses unknown keys, NaN
    and infinity (`allow_inf_nan=True` in a field allows both there). A field named `key`, `keys`, `secret`, `secrets`,
    `password` or `passphrase`, or ending in one of these behind `_`, is a secret: it is neither printed nor saved, and
    what has one is not pickled. A field with `exclude=True` takes an object of one call, such as a second model: it is
    an argument of `generate`, and is refused in a config.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False,
        hide_input_in_errors=True,
    )  # fmt: skip

    def __getstate__(self) -> Any:
        secrets = [key for key in type(self).model_fields if is_secret(key) and getattr(self, key) is not None]
        if secrets:
            raise ParameterError(
                f"{', '.join(secrets)} would stand in the pickle, and secrets are not pickled; send what they are made "
                "of, such as a WatermarkingConfig with key_from, and build the component there"
            )
        return super().__getstate__()

    def __repr_args__(self) -> Any:
        return [(k, shown(k, v) if k else v) for k, v in super().__repr_args__()]


AnyParams = Params


class Component:
    """What all kinds have in common.

    Class attributes:
        contract_version: the version of the contract the component was written for; must be stated.
        name: public name; the entry point's name wins where the two differ.
        paper: the source of the method, as a reader would cite it.
        Params: the parameters, a subclass of `genmode.Params`.
        traits: what the component states of itself, see `Trait`; nothing by default.
        skip_checks: checks of `genmode.testing` that the component rightly cannot meet, each with the reason.
    """

    contract_version: ClassVar[int | None] = None
    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    Params: ClassVar[type[AnyParams]] = Params
    traits: ClassVar[frozenset[Trait]] = frozenset()
    skip_checks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, params: AnyParams | None = None, **values: Any) -> None:
        """Takes either a ready `Params` or its fields by name; raises `pydantic.ValidationError`."""
        self.params: Any = params if params is not None else self.Params(**values)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__dict__.get("name"):
            cls.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")

    def __repr__(self) -> str:
        given = self.params.model_dump(exclude_unset=True)
        told = {k: HIDDEN if is_secret(k) else repr(shown(k, v)) for k, v in given.items()}
        for key in self.params.model_fields_set - given.keys():
            if getattr(self.params, key) is not None:
                told[key] = type(getattr(self.params, key)).__name__
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in told.items())})"
