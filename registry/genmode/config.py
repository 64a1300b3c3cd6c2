"""The generation config, with plugins' keys.

`GenerationConfig` is transformers' with the promises of its six methods extended to keys of components:
they are checked against the components' `Params`, survive saving and loading, and a key that nothing knows
is an error with the closest one that something does. Keys that come from elsewhere, from a file or from a
model's own config, may belong to the model (as Whisper's do): these are kept, checked if a component owns
them, and no error otherwise.

Three further keys name components: `strategy` one, `processors` and `criteria` lists. A saved file says
what it needs, see `needs`.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import transformers
from transformers.generation.configuration_utils import GenerationMode

from .atomic import write_text
from .contract import is_secret
from .contract.component import HIDDEN, shown
from .contract.kinds import Kind
from .errors import ParameterError
from .plugins.call_keys import CONFIG_NAMING, HEADER, NAMING
from .plugins.parameters import (
    check_params,
    flag_defaults,
    foreign_values,
    is_foreign,
    named_components,
    plugin_values,
    select,
    unknown_keys,
)
from .plugins.registry import registry
from .plugins.requirements import WATERMARK, check_needs, header, saved_watermark
from .plugins.resolution import ComponentInfo, Key
from .plugins.secrets import guarded
from .plugins.settings import closest
from .watermark.config import WatermarkingConfig, read_flag

if TYPE_CHECKING:
    from transformers import PreTrainedModel

JUDGED_BY = frozenset({"do_sample", "num_beams"})
"""Keys by which transformers judges whether others make sense."""

SINGLE = frozenset(kind.argument for kind in (Kind.STRATEGIES, Kind.DRAFTERS, Kind.VERIFICATIONS))
"""Keys that name one component; others name a list of them."""


def named_in(config: transformers.GenerationConfig) -> list[Key]:
    """(kind, name) of the components that a config, of either class, names.

    Raises:
        ParameterError: `strategy` is no name, or `processors` or `criteria` no list of names.
    """
    given = {key: getattr(config, key, None) for key in NAMING if key in CONFIG_NAMING}
    for key, value in given.items():
        single = key in SINGLE
        if value is not None and not _are_names([value] if single else value):
            wanted = f"the name of a {NAMING[key][0].noun}" if single else f"a list of names of {NAMING[key][0]}"
            raise ParameterError(
                f"{key}={shown(key, value)!r} is not allowed in a config; it has to be {wanted}; "
                "objects are given to genmode.generate"
            )
    return named_components(given, registry())


class GenerationConfig(transformers.GenerationConfig):
    """transformers' generation config, which also knows the keys of genmode's components.

    Every key of an installed component is accepted and checked, `strategy`, `processors`, `criteria`,
    `draft` and `verify` name components, and what nothing knows raises ParameterError with the closest key.
    """

    strategy: str | None = None
    processors: list[str] | None = None
    criteria: list[str] | None = None
    draft: str | None = None
    verify: str | None = None

    def __init__(self, **kwargs: Any) -> None:
        self._carried: frozenset[str] = frozenset(kwargs.pop("_carried", ()))
        kwargs = _without_header(kwargs)
        base: Any = super()
        base.__init__(**_with_watermark(kwargs))

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, guarded(key, value) if is_secret(key) and is_foreign(key) else value)

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Check every value, of transformers' keys and of components'.

        Args:
            strict: whether what transformers would only log is an error.
            user_set_attributes: the keys that were just given, None for all. Only these can be unknown.

        Raises:
            ValueError: of transformers' own checks.
            ParameterError: a key is unknown, or a component's value of the wrong type or out of bounds.
            UnknownComponentError: a component that the config names is not installed.
        """
        with self._as_for_its_strategy():
            super().validate(strict=strict, user_set_attributes=user_set_attributes)
        self._validate_components(user_set_attributes)

    @contextlib.contextmanager
    def _as_for_its_strategy(self) -> Generator[None, None, None]:
        """For transformers' checks: with the flags that `strategy` implies, without the keys that are its parameters."""
        if not isinstance(self.strategy, str):
            yield
            return
        strategy = registry().get(Kind.STRATEGIES, self.strategy)
        seen = {k: v for k, v in strategy.flags.items() if k in flag_defaults() and getattr(self, k) is None}
        seen |= dict.fromkeys(flag_defaults().keys() & strategy.Params.model_fields.keys() - JUDGED_BY)
        kept = {key: getattr(self, key) for key in seen}
        vars(self).update(seen)
        try:
            yield
        finally:
            vars(self).update(kept)

    def _validate_components(self, given: set[str] | None) -> None:
        named = named_in(self)
        values: dict[Key, dict[str, Any]] = {pair: select(registry().get(*pair), vars(self)) for pair in named}
        unknown: list[str] = []
        for key, value in foreign_values(vars(self)).items():
            owners = registry().owners(key, named)
            for info in owners:
                values.setdefault((info.kind, info.name), {})[key] = value
                if value is not None and registry().get(info.kind, info.name).Params.model_fields[key].exclude:
                    raise ParameterError(
                        f"{key} takes a {type(value).__name__} for one call and is nothing that a config keeps; give it "
                        f"to the call: generate(model, ..., {key}=...)"
                    )
            if not owners and (given is None or key in given) and key not in self._carried:
                unknown.append(key)
        if unknown:
            raise unknown_keys(
                "key of a generation config:", unknown, flag_defaults().keys() | CONFIG_NAMING, registry()
            )
        for pair, given_values in values.items():
            check_params(registry().get(*pair), given_values, registry().info(*pair).origin)

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Set the keys that are transformers' or components'; return the others, unused.

        Args:
            defaults_only: set only what is unset.
            allow_custom_entries: set unknown keys as well, as of a model's own config; return none.
        """
        kwargs = _without_header(kwargs)
        ours = {k for k in CONFIG_NAMING & kwargs.keys() if not defaults_only or getattr(self, k) is None}
        for key in ours:  # first, since a named component owns its keys
            setattr(self, key, kwargs[key])
        fresh = {key: value for key, value in kwargs.items() if not hasattr(self, key)}
        if allow_custom_entries:
            self._carried |= fresh.keys()
        else:
            named = named_in(self)
            for key, value in fresh.items():
                if _is_plain(value) and registry().owners(key, named):
                    setattr(self, key, value)
                    ours.add(key)
        base: Any = super()
        rest: dict[str, Any] = base.update(defaults_only, allow_custom_entries, **_with_watermark(kwargs))
        return {key: value for key, value in rest.items() if key not in ours}

    def get_generation_mode(  # type: ignore[override]  # a strategy need not be one of transformers' modes
        self, assistant_model: PreTrainedModel | None = None
    ) -> GenerationMode | str:
        """transformers' mode; or the name in `strategy`, as transformers' member where it is theirs."""
        if self.strategy is None:
            return super().get_generation_mode(assistant_model)
        return next((mode for mode in GenerationMode if mode.value == self.strategy), self.strategy)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """A config of a dictionary, whose unknown keys are kept, and of keyword arguments, which are not.

        Returns:
            The config; with `return_unused_kwargs=True`, also the keyword arguments that nothing knows.
        """
        carried = frozenset(key for key in config_dict if key not in flag_defaults())
        data = {**config_dict, "_carried": carried.union(config_dict.get("_carried", ()))}
        if not kwargs.pop("return_unused_kwargs", False):
            return super().from_dict(data, **kwargs)
        known = carried | flag_defaults().keys() | CONFIG_NAMING
        unused = {
            k: v for k, v in kwargs.items() if k not in known and not k.startswith("_") and not registry().owners(k)
        }
        return super().from_dict(data, **{k: v for k, v in kwargs.items() if k not in unused}), unused

    @classmethod
    def from_pretrained(cls, pretrained_model_name: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As transformers'; the components that the file needs have to be installed.

        Raises:
            UnknownComponentError: one is not; says what to install.
            OSError: there is no such file.
        """
        base: Any = super()
        loaded: Any = base.from_pretrained(pretrained_model_name, *args, **kwargs)
        config = cast("GenerationConfig", loaded[0] if isinstance(loaded, tuple) else loaded)
        known = flag_defaults().keys() | CONFIG_NAMING
        owned = plugin_values(vars(config), registry(), named_in(config))
        for key in foreign_values(vars(config)).keys() - owned.keys():
            near = closest(key, known | registry().parameter_keys(), cutoff=0.85)
            if near:
                warnings.warn(
                    f"the generation config of {pretrained_model_name} has the key {key!r}, which nothing "
                    f"knows; did you mean {near!r}? It is kept, and has no effect",
                    UserWarning,
                    stacklevel=2,
                )
        return cast("Any", loaded)

    @classmethod
    def from_model_config(cls, model_config: Any) -> GenerationConfig:
        """As transformers', with the keys of components that were added to the model's config.

        Keys that the config's class itself declares stay the model's, also where a component has a
        parameter of that name.
        """
        added = _added(model_config)
        base: Any = super()
        config: GenerationConfig = base.from_model_config(model_config)
        for key in CONFIG_NAMING & added.keys():
            setattr(config, key, added.pop(key))
        for key, value in added.items():
            if registry().owners(key, named_in(config)):
                setattr(config, key, value)
        config.validate(user_set_attributes=set())
        return config

    def needs(self) -> list[ComponentInfo]:
        """The components that the config names or sets a key of."""
        named = named_in(self)
        pairs = dict.fromkeys(named)
        if isinstance(self.watermarking_config, WatermarkingConfig):
            pairs[Kind.WATERMARKERS.value, self.watermarking_config.scheme] = None
        for key in foreign_values(vars(self)):
            pairs |= {(info.kind, info.name): None for info in registry().owners(key, named)}
        return [registry().info(*pair) for pair in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Plain data of every key, also of components'; secrets are hidden in objects that JSON does not take."""
        data: dict[str, Any] = super().to_dict()
        data.pop("_carried", None)
        return data

    def to_json_string(self, *args: Any, keys_to_pop: list[str] | None = None, **kwargs: Any) -> str:
        """As transformers', without secrets."""
        base: Any = super()
        text: str = base.to_json_string(*args, keys_to_pop=[*(keys_to_pop or ()), *_secrets(self)], **kwargs)
        return text

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As transformers'; ParameterError rather than ValueError where a component's value is wrong."""
        self._validate_components(None)
        base: Any = super()
        base.save_pretrained(save_directory, *args, **kwargs)

    def to_json_file(
        self,
        json_file_path: str | os.PathLike[str],
        use_diff: bool = True,
        keys_to_pop: list[str] | None = None,
    ) -> None:
        """Save, with what the config needs; secret keys of components are left out, with a warning."""
        data = json.loads(self.to_json_string(use_diff=use_diff, keys_to_pop=keys_to_pop))
        secrets = sorted(key for key in foreign_values(vars(self)) if is_secret(key))
        if secrets:
            warnings.warn(f"not saved, being secret: {', '.join(secrets)}", UserWarning, stacklevel=2)
        if needs := self.needs():
            data[HEADER] = header(needs)
        if isinstance(self.watermarking_config, WatermarkingConfig) and "watermarking_config" in data:
            data[HEADER][WATERMARK] = data.pop("watermarking_config")  # transformers could not read the file with it
        write_text(json_file_path, json.dumps(data, indent=2, sort_keys=True) + "\n")

    def __eq__(self, other: object) -> bool:
        base: Any = super()
        same: bool = base.__eq__(other)  # by JSON, which has no secrets
        if not same or cast("object", self.watermarking_config) != getattr(other, "watermarking_config", None):
            return False
        return _secrets(self) == _secrets(other)

    __hash__ = transformers.GenerationConfig.__hash__

    def __repr__(self) -> str:
        private = [key for key in vars(self) if key.startswith("_")]  # tensors, while generate runs
        data = json.loads(self.to_json_string(ignore_metadata=True, keys_to_pop=private))
        data |= {key: HIDDEN for key in foreign_values(vars(self)) if is_secret(key)}
        return f"{type(self).__name__} {json.dumps(data, indent=2, sort_keys=True)}\n"


def _secrets(config: object) -> dict[str, Any]:
    return {key: value for key, value in foreign_values(vars(config)).items() if is_secret(key)}


def _without_header(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments without what a saved file has under `HEADER`, once it is checked, and with the watermark in it."""
    saved = kwargs.get(HEADER)
    check_needs(saved)
    rest = {key: value for key, value in kwargs.items() if key != HEADER}
    watermark = saved_watermark(saved)
    return rest if watermark is None else {"watermarking_config": watermark, **rest}


def _with_watermark(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with a watermark's dictionary as its object; transformers knows only its own."""
    saved = kwargs.get("watermarking_config")
    return kwargs if saved is None else {**kwargs, "watermarking_config": read_flag(saved)}


def _are_names(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in cast("Sequence[object]", value))


def _is_plain(value: Any) -> bool:
    """Whether a value could stand in a config; tensors and caches are inputs of the model."""
    return isinstance(value, (bool, int, float, str, list, tuple, dict))


def _added(model_config: Any) -> dict[str, Any]:
    """What was added to a model's config: set keys that its class does not declare."""
    kind: Any = None
    if not isinstance(model_config, Mapping):
        kind = cast("Any", type(model_config))
        model_config = model_config.to_dict()
    data: dict[str, Any] = dict(cast("Mapping[str, Any]", model_config))
    if kind is None:
        name = data.get("model_type")
        if name is not None and name not in transformers.CONFIG_MAPPING:
            return {}  # which keys are the model's own cannot be known
        kind = transformers.CONFIG_MAPPING[name] if name is not None else None
    declared = flag_defaults().keys() | {HEADER, "model_type"} | set(getattr(kind, "__dataclass_fields__", {}))
    added = {k: v for k, v in data.items() if v is not None and k not in declared and not k.startswith("_")}
    if added and kind is not None:
        try:
            own: dict[str, Any] = kind().to_dict()  # keys that a config computes of others
        except Exception:  # a class without defaults may raise anything; then its fields must do
            own = {}
        added = {k: v for k, v in added.items() if k not in own}
    return added
