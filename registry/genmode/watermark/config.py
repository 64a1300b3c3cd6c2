"""How a text is to be marked: the scheme, its parameters and its key.

The key is a secret: it is not shown, and not saved unless asked for. Parameters that are keys by their
name (`hashing_key`) are treated alike. What a file names instead is where the key is to be read
(`key_from`), and what tells a wrong key or tokenizer (`key_id`, `tokenizer_id`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import write_text
from ..contract import Watermarker, is_secret
from ..contract.component import shown
from ..contract.kinds import Kind
from ..errors import GenmodeError, ParameterError, UnknownComponentError, UnsupportedError
from ..plugins.parameters import build_params, check_params
from ..plugins.registry import registry
from ..plugins.secrets import guarded, reveal
from ..plugins.settings import closest, hint
from . import keys

OWN = ("key_from", "key_id", "tokenizer_id")
"""What a configuration holds besides the scheme's parameters."""

LARGEST = 1 << 20
"""Bytes of a file that are read; a longer one is no configuration."""


@dataclass(init=False, repr=False, eq=False)  # which tells transformers to write it as `to_dict` does
class WatermarkingConfig:
    """A watermark by the name of its scheme, for `genmode.generate(watermark=...)` or in a GenerationConfig.

        WatermarkingConfig("kgw", bias=2.0, key=15485863)
        WatermarkingConfig("gumbel", key_from="env:MARK_KEY")
        WatermarkingConfig.with_new_key("dip")

    Args:
        scheme: the name of a watermarker.
        key: the secret; goes to the watermarker's parameter `key`. None leaves that at its default.
        key_from: where the key is read when it is needed: `env:NAME` or `file:PATH`.
        key_id, tokenizer_id: what a saved configuration knows of its key and tokenizer, see `save`.
        params: the watermarker's other parameters.
    """

    scheme: str
    params: dict[str, Any]
    key_from: str | None
    key_id: str | None
    tokenizer_id: str | None

    def __init__(
        self, /, scheme: str, *, key: Any = None, key_from: str | None = None, key_id: str | None = None,
        tokenizer_id: str | None = None, **params: Any,
    ) -> None:  # fmt: skip
        if not isinstance(scheme, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users' input
            kind = type(scheme).__name__  # the value may be the key
            raise ParameterError(f"a scheme of type {kind} is not allowed; it has to be the name of a watermarker")
        if key is not None and key_from is not None:
            raise ParameterError("key and key_from are both given; give one of them")
        if key_from is not None:
            keys.check_source(key_from)
        self.scheme = scheme
        self.params = {name: guarded(name, value) for name, value in params.items()}
        self.key, self.key_from, self.key_id, self.tokenizer_id = key, key_from, key_id, tokenizer_id

    @property
    def key(self) -> Any:
        """The secret in plain form; None if there is none."""
        return reveal(self._secret)

    @key.setter
    def key(self, value: Any) -> None:
        self._secret = guarded("key", value)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, WatermarkingConfig) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    @classmethod
    def with_new_key(cls, scheme: str, **params: Any) -> WatermarkingConfig:
        """A configuration with a key from the operating system's random numbers."""
        return cls(scheme, key=keys.new_key(), **params)

    def __repr__(self) -> str:
        shown = {k: "***" if is_secret(k) else repr(v) for k, v in self.params.items()}
        if self._secret is not None:
            shown["key"] = "***"
        shown |= {name: repr(value) for name in OWN if (value := getattr(self, name)) is not None}
        return f"WatermarkingConfig({', '.join([repr(self.scheme), *(f'{k}={v}' for k, v in shown.items())])})"

    def to_dict(self, secrets: bool = False) -> dict[str, Any]:
        """Plain data that `from_dict` reads. Secrets are left out unless `secrets`."""
        data = {
            "scheme": self.scheme,
            **{k: reveal(v) for k, v in self.params.items() if secrets or not is_secret(k)},
            **{name: value for name in OWN if (value := getattr(self, name)) is not None},
        }
        return {**data, "key": self.key} if secrets and self.key is not None else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WatermarkingConfig:
        """The inverse of `to_dict`; ParameterError where `data` names no scheme.

        Data may come from a stranger's file, so a `key_from` in it is kept but not read: give it once more to `load`, or
        set `config.key_from`.
        """
        if "scheme" not in data:
            raise ParameterError(f"a watermark of {sorted(data)} names no scheme; add 'scheme', a watermarker's name")
        source = data.get("key_from")
        return cls(**{**data, "key_from": keys.SaidByFile(source)} if isinstance(source, str) else data)

    def save(self, path: str | Path, *, tokenizer: Any = None, secrets: bool = False) -> None:
        """Write the configuration as JSON.

        Args:
            path: the file.
            tokenizer: the one of the model; its vocabulary's hash goes into the file, so that detection with
                another one is refused.
            secrets: write the key as well, to a file that only you may read. Without it the file has `key_id`, which tells a wrong key.
        """
        self.validate()
        data = self.to_dict(secrets)
        if (key := self._key()) is not None:
            data["key_id"] = keys.key_id(key)
        if tokenizer is not None:
            data["tokenizer_id"] = keys.tokenizer_id(tokenizer)
        write_text(path, json.dumps(data, indent=2) + "\n", private=secrets)

    @classmethod
    def load(cls, path: str | Path, *, key: Any = None, key_from: str | None = None) -> WatermarkingConfig:
        """Read what `save` wrote; the key that was not saved comes from `key` or `key_from`.

        Raises:
            ParameterError: the file cannot be read, is no configuration, or was saved with another key.
        """
        data, trouble = None, ""
        try:
            with Path(path).open("rb") as file:
                data = json.loads(file.read(LARGEST))
        except (OSError, ValueError, RecursionError) as error:
            trouble = (
                f"{type(error).__name__}: {error}"  # not the error itself, which holds what was read, keys included
            )
        if trouble:
            raise ParameterError(f"{path} is no watermark configuration: {trouble}")
        if not isinstance(data, dict):
            raise ParameterError(f"{path} is no watermark configuration: it holds no JSON object")
        if key is not None or key_from is not None:
            data = {k: v for k, v in data.items() if k not in ("key", "key_from")} | {"key": key}
        config = cls.from_dict(data)
        if key_from is not None:
            keys.check_source(key_from)
            config.key_from = key_from
        config.validate()
        return config

    def validate(self) -> None:
        """Check what is given against the watermarker's parameters; a key may be missing.

        Raises:
            UnknownComponentError: no such scheme is installed.
            ParameterError: a parameter is unknown or out of bounds.
        """
        given = self.params if self._secret is None else {**self.params, "key": self._secret}
        check_params(named_watermarker(self.scheme), given, self._origin())

    def check_tokenizer(self, tokenizer: Any) -> None:
        """ParameterError if the configuration was saved with another tokenizer; None is not checked."""
        if tokenizer is None or self.tokenizer_id is None:
            return
        if (found := keys.tokenizer_id(tokenizer)) != self.tokenizer_id:
            raise ParameterError(
                f"the text was to be marked with tokenizer {self.tokenizer_id}, and this one is {found}: their tokens "
                "differ, so that no mark would be found; pass the tokenizer of the model that wrote the text"
            )

    def build(self) -> Watermarker:
        """The watermarker, ready to mark or to detect.

        Raises:
            ParameterError: a parameter is unknown, out of bounds, or missing, as a key is that was not saved; or the
                key is not the one that the configuration was saved with.
        """
        component = named_watermarker(self.scheme)
        key = self._key()
        if key is not None and self.key_id is not None and keys.key_id(key) != self.key_id:
            raise ParameterError(
                f"the key is not the one that this configuration of {self.scheme!r} was saved with (key_id "
                f"{self.key_id}); give that key, or leave key_id out"
            )
        given = self.params if key is None else {**self.params, "key": key}
        return component(build_params(component, given, self._origin()))

    def construct_processor(self, vocab_size: int, device: Any) -> Any:
        """Refuses transformers' own `generate`, which would leave the text unmarked."""
        raise UnsupportedError(
            f"watermark {self.scheme!r} is a genmode component; call genmode.generate(model, ...), or "
            "genmode.attach(model) before model.generate(...)"
        )

    def _key(self) -> Any:
        return self.key if self.key_from is None else keys.read_key(self.key_from)

    def _origin(self) -> str:
        return registry().info(Kind.WATERMARKERS, self.scheme).origin


def named_watermarker(scheme: str) -> type[Watermarker]:
    """The class; UnknownComponentError where nothing has the name, which is not shown unless it is nearly one that is
    there: what was given in its place may be the key."""
    host = registry()
    if not host.has(Kind.WATERMARKERS, scheme):
        known = [info.name for info in host.components(Kind.WATERMARKERS)]
        if not host.has(Kind.PROCESSORS, scheme) and closest(scheme, known) is None:
            raise UnknownComponentError(
                f"no watermarker has the name that was given; there are {', '.join(known) or 'none'}. A key goes into "
                "genmode.WatermarkingConfig(scheme, key=...)"
            )
    return host.get(Kind.WATERMARKERS, scheme)


def check_given(watermark: Any) -> None:
    """Refuse what cannot be the `watermark` of a call or of a detection, without showing it."""
    if isinstance(watermark, str):
        named_watermarker(watermark)
    elif watermark is not None and (isinstance(watermark, (bool, int, float, bytes)) or hasattr(watermark, "items")):
        raise ParameterError(
            f"watermark: an object of type {type(watermark).__name__} is not allowed; give the name of a watermarker, or "
            "genmode.WatermarkingConfig(scheme, key=..., ...)"
        )


def read_flag(value: Any) -> Any:
    """What transformers' flag `watermarking_config` says: an object of genmode's class or transformers'; None for none.

    A dictionary with `scheme` is genmode's, any other is transformers', as there. Secrets in it are not shown.

    Raises:
        ParameterError: it is neither, or transformers does not take what is in it.
    """
    if isinstance(value, dict):
        value = WatermarkingConfig.from_dict(value) if "scheme" in value else _of_transformers(value)  # pyright: ignore[reportUnknownArgumentType]
    if value is None or isinstance(value, WatermarkingConfig):
        return value  # genmode's own is checked where it is built
    if not all(callable(getattr(value, method, None)) for method in ("validate", "construct_processor")):
        raise ParameterError(
            f"a watermarking_config of type {type(value).__name__} is not allowed; it has to be a WatermarkingConfig, of "
            "genmode or transformers, or its dictionary"
        )
    try:
        value.validate()
    except GenmodeError:
        raise
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"watermarking_config={shown('', vars(value))!r} is not allowed; transformers says: {error}"
        ) from error
    key = getattr(value, "hashing_key", 0)
    if isinstance(key, bool) or not isinstance(key, int) or not -(2**63) <= key < 2**63:
        raise ParameterError(
            f"watermarking_config: a hashing_key of type {type(key).__name__} that is not a whole number of 64 bits"
        )
    return value


def _of_transformers(data: dict[Any, Any]) -> Any:
    """transformers' watermark of a dictionary, which it makes of its first class whatever the keys are."""
    from transformers import WatermarkingConfig as Theirs  # here, since a configuration alone does without transformers

    known = [name for name in inspect.signature(Theirs).parameters if name != "kwargs"]
    if wrong := [key for key in data if key not in known]:
        told = ", ".join(f"{key!r}{hint(str(key), known)}" for key in wrong)
        raise ParameterError(
            f"watermarking_config has {told}: without 'scheme' it is transformers', with {', '.join(known)}; add "
            "'scheme', a watermarker's name, for one of genmode's"
        )
    return Theirs(**data)
