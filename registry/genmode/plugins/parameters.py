"""Parameters: which part of a call each keyword argument belongs to, and values into `Params`.

A key of transformers' generation config is a flag, also where a component has a field of that name: the
component reads it with `select`. Any other key is an input of the model if its forward takes it, else a
parameter of the components that own it (`Registry.owners`). None means "not set", as in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pydantic

from ..contract import is_secret
from ..errors import ConflictError, ParameterError
from .call_keys import NAMING, SAVED
from .loading import kind_of
from .resolution import ComponentInfo, Key, shared_key
from .secrets import guarded, reveal, without_secrets
from .settings import closest, hint

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from ..contract import Component, Params
    from .registry import Registry

_AUTHORS = ("value_error", "assertion_error")
"""Types of errors whose words an author chose, who may have put the value into them."""

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@lru_cache(maxsize=1)
def flag_defaults() -> Mapping[str, Any]:
    """Every key of transformers' generation config, with its default in `generate`."""
    from ..hf import flags  # transformers is imported where the first flag is looked at

    return flags.default_flags()


def is_foreign(key: str) -> bool:
    """Whether a key of a config may be a component's: it is not transformers', and genmode itself takes none of the name."""
    return not key.startswith("_") and key not in flag_defaults() and key not in SAVED


def foreign_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the values of a config, as `vars` gives them, hold of foreign keys and is set."""
    return {key: value for key, value in values.items() if value is not None and is_foreign(key)}


def plugin_values(values: Mapping[str, Any], registry: Registry, named: Iterable[Key] = ()) -> dict[str, Any]:
    """Those of `foreign_values` that components own."""
    return {key: value for key, value in foreign_values(values).items() if registry.owners(key, named)}


def named_components(given: Mapping[str, Any], registry: Registry) -> list[Key]:
    """(kind, name) of the components that are named.

    Args:
        given: by the argument of `genmode.generate`, see `call_keys.NAMING`; what is no name is passed over.
        registry: tells of what kind a name is where an argument takes several.
    """
    found: list[Key] = []
    for argument, kinds in NAMING.items():
        for name in as_list(given.get(argument)):
            if isinstance(name, str):
                kind = next((kind for kind in kinds if registry.has(kind, name)), kinds[0])
                found.append((kind.value, name))
    return found


def as_list(value: Any) -> list[Any]:
    """A list of what was given: nothing, one thing, or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


class Split(NamedTuple):
    """Keyword arguments of one call, by whom they are for."""

    flags: dict[str, Any]
    parameters: dict[str, Any]
    inputs: dict[str, Any]


def split(
    kwargs: Mapping[str, Any],
    config_keys: Collection[str],
    model_keys: Collection[str],
    registry: Registry,
    named: Iterable[Key] = (),
) -> Split:
    """Sort keyword arguments of `generate`.

    No plugin is imported while every key is a flag or a model input.

    Args:
        kwargs: the keyword arguments.
        config_keys: keys of transformers' generation config, see `flag_defaults`.
        model_keys: names of the model's inputs.
        registry: whose components may own the rest.
        named: (kind, name) of the components that the call names.

    Raises:
        ParameterError: a key fits nowhere; names the closest key that does.
        ConflictError: two distributions declare a key and nothing says which is meant.
    """
    named = tuple(named)
    parts = Split({}, {}, {})
    owned: dict[str, list[ComponentInfo]] = {}
    unknown: list[str] = []
    for key, value in kwargs.items():
        if key in config_keys:
            parts.flags[key] = value
        elif key in model_keys:
            parts.inputs[key] = value
        elif owners := registry.owners(key, named):
            parts.parameters[key] = guarded(key, value)
            owned[key] = owners
        else:
            unknown.append(key)
    if unknown:
        raise unknown_keys("argument", unknown, [*config_keys, *model_keys], registry)
    _refuse_sharing(owned, registry, named)
    return parts


def select(component: type[Component], *sources: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are for this component: of its fields, those set and not None; later sources win."""
    found: dict[str, Any] = {}
    for key in component.Params.model_fields:
        source = next((source for source in reversed(sources) if key in source), None)
        if source is not None and source[key] is not None:
            found[key] = source[key]
    return found


def build_params(component: type[Component], values: Mapping[str, Any], origin: str = "") -> Params:
    """Values into the component's `Params`.

    Args:
        component: the class.
        values: by field; fields left out keep their defaults.
        origin: who provides the component, for messages; see `Registry.origin`.

    Raises:
        ParameterError: a value is unknown, missing, of the wrong type, or out of bounds. Says which key,
            what was given (unless it is a secret), what is allowed, and for which component.
    """
    refuse_large_numbers(values)
    plain = {key: reveal(value) for key, value in values.items()}
    try:
        return component.Params(**plain)
    except pydantic.ValidationError as error:
        wrong, cause = error.errors(), showable(error, plain)
    raise explained(component, wrong, origin, plain) from cause  # here, since an error keeps the one it is raised in


def check_params(component: type[Component], values: Mapping[str, Any], origin: str = "") -> None:
    """As `build_params`, for values that need not be complete yet: what is missing is no error."""
    refuse_large_numbers(values)
    plain = {key: reveal(value) for key, value in values.items()}
    try:
        component.Params(**plain)
        return
    except pydantic.ValidationError as error:
        wrong, cause = [one for one in error.errors() if one["type"] != "missing"], showable(error, plain)
    if wrong:
        raise explained(component, wrong, origin, plain) from cause


_LARGEST = 3.4e38


def refuse_large_numbers(values: Mapping[str, Any]) -> None:
    """Refuse numbers that a tensor cannot hold, also within lists and tuples: beyond 64 bits, or beyond float32.

    Raises:
        ParameterError: names the key.
    """
    for key, value in values.items():
        try:
            large = not is_secret(key) and _has_large(value)
        except RecursionError:
            raise ParameterError(f"{key} is not allowed: it has parts too deep within each other") from None
        if large:
            raise ParameterError(f"{key}={_short(value)} is not allowed: it has a number beyond 64 bits, or float32")


def _has_large(value: Any) -> bool:
    if isinstance(value, int):
        return not -(2**63) <= value < 2**63
    if isinstance(value, float):
        return _LARGEST < abs(value) < math.inf
    return isinstance(value, (list, tuple)) and any(_has_large(one) for one in cast("Iterable[Any]", value))


def unknown_keys(what: str, keys: Iterable[str], known: Iterable[str], registry: Registry) -> ParameterError:
    """The error that names keys which fit nowhere, each with the closest one that would.

    Args:
        what: what the keys are, e.g. "argument".
        keys: the keys that fit nowhere.
        known: keys that would have been right, besides those of components.
        registry: whose components may own keys; all enabled ones are imported.
    """
    right = registry.parameter_keys().union(known)
    told = [f"{key!r}" + (f" (did you mean {near!r}?)" if (near := closest(key, right)) else "") for key in keys]
    idle = sorted({i.distribution for i in registry.components() if i.state in ("disabled", "conflict", "broken")})
    note = f"; not in use, wholly or in part: {', '.join(idle)}" if idle else ""
    return ParameterError(
        f"unknown {what} {', '.join(told)}. Allowed are keys of transformers' GenerationConfig, the model's "
        f"inputs, and parameters of the installed components{note}. `genmode list` shows these"
    )


def allowed(field: FieldInfo) -> str:
    """Type and bounds of a field in words: `float, > 0, <= 1`."""
    kind: Any = field.annotation
    words = [kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")]
    for bound in field.metadata:
        words += [
            f"{sign} {value}" for name, sign in _BOUNDS.items() if (value := getattr(bound, name, None)) is not None
        ]
        step = getattr(bound, "multiple_of", None)
        words += [] if step is None else [f"a multiple of {step}"]
    return ", ".join(words)


def showable(error: pydantic.ValidationError, values: Mapping[str, Any]) -> pydantic.ValidationError | None:
    """The cause to keep; none if it would show a secret."""
    return None if any(is_secret(key) for key in values) else error


def explained(
    component: type[Component], errors: Iterable[Any], origin: str, values: Mapping[str, Any]
) -> ParameterError:
    """pydantic's errors in our words, without the secrets among the values."""
    fields = component.Params.model_fields
    lines: list[str] = []
    for error in errors:
        key = str(error["loc"][0]) if error["loc"] else ""
        place = ".".join(str(part) for part in error["loc"])
        given, message = _short(error["input"]), error["msg"]
        if is_secret(key):
            place, given = key, "a secret value"
            if error["type"] in _AUTHORS:
                message = "it does not fit"
        if error["type"] == "extra_forbidden":
            lines.append(f"{place} is no parameter of it{hint(key, fields)}")
        elif error["type"] == "missing":
            lines.append(f"{place} has to be given" + (f"; allowed: {allowed(fields[key])}" if key in fields else ""))
        elif key in fields:
            about = f" ({fields[key].description})" if fields[key].description else ""
            lines.append(f"{place}={given} is not allowed: {message}; allowed: {allowed(fields[key])}{about}")
        else:
            lines.append(str(error["msg"]).removeprefix("Value error, "))
    kind = kind_of(component)
    noun = kind.noun if kind is not None else "component"
    who = f"{noun} {component.name!r}" + (f" of {origin}" if origin else "")
    return ParameterError(without_secrets(f"{who}: " + "; ".join(lines), values))


def _short(value: Any) -> str:
    """The value in words, as many as a message can hold."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} with parts too deep within each other"
    return text if len(text) <= 120 else text[:117] + "..."


def _refuse_sharing(owned: Mapping[str, list[ComponentInfo]], registry: Registry, named: tuple[Key, ...]) -> None:
    """A component that the call switches on must not have a key that goes to another distribution's."""
    active = {(info.kind, info.name): info for infos in owned.values() for info in infos}
    for key, infos in owned.items():
        if registry.settings.preferred("parameters", key) or any((i.kind, i.name) in named for i in infos):
            continue
        for pair, info in active.items():
            foreign = all(info.distribution != owner.distribution for owner in infos)
            if foreign and key in registry.get(*pair).Params.model_fields:
                raise ConflictError(shared_key(key, [*infos, info]))
