"""How a text is to be marked: the scheme, its parameters and its key.

The key is a secret: it is not shown, and not saved unless asked for. Parameters that are keys by their
name (`hashing_key`) are treated alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .contract import Watermarker
from .errors import ParameterError, UnsupportedError
from .parameters import build_params, check_params, is_secret
from .registry import registry


@dataclass(init=False, repr=False)
class WatermarkingConfig:
    """A watermark by the name of its scheme, for `genmode.generate(watermark=...)` or in a GenerationConfig.

        WatermarkingConfig("kgw", bias=2.0, key=15485863)

    Args:
        scheme: the name of a watermarker.
        key: the secret; goes to the watermarker's parameter `key`. None leaves that at its default.
        params: the watermarker's other parameters.
    """

    scheme: str
    params: dict[str, Any]
    key: Any

    def __init__(self, scheme: str, *, key: Any = None, **params: Any) -> None:
        if not isinstance(scheme, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users' input
            raise ParameterError(f"scheme={scheme!r} is not allowed; it has to be the name of a watermarker")
        self.scheme = scheme
        self.params = params
        self.key = key

    def __repr__(self) -> str:
        shown = {k: "***" if is_secret(k) else repr(v) for k, v in self.params.items()}
        if self.key is not None:
            shown["key"] = "***"
        return f"WatermarkingConfig({', '.join([repr(self.scheme), *(f'{k}={v}' for k, v in shown.items())])})"

    def to_dict(self, secrets: bool = False) -> dict[str, Any]:
        """Plain data that `from_dict` reads. Secrets are left out unless `secrets`."""
        data = {
            "scheme": self.scheme,
            **{k: v for k, v in self.params.items() if secrets or not is_secret(k)},
        }
        return {**data, "key": self.key} if secrets and self.key is not None else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WatermarkingConfig:
        """The inverse of `to_dict`; ParameterError where `data` names no scheme."""
        if "scheme" not in data:
            raise ParameterError(f"a watermark of {sorted(data)} names no scheme; add 'scheme', a watermarker's name")
        return cls(**data)

    def validate(self) -> None:
        """Check what is given against the watermarker's parameters; a key may be missing.

        Raises:
            UnknownComponentError: no such scheme is installed.
            ParameterError: a parameter is unknown or out of bounds.
        """
        check_params(registry().get("watermarkers", self.scheme), self._values(), self._origin())

    def build(self) -> Watermarker:
        """The watermarker, ready to mark or to detect.

        Raises:
            ParameterError: a parameter is unknown, out of bounds, or missing, as a key is that was not saved.
        """
        component = registry().get("watermarkers", self.scheme)
        return component(build_params(component, self._values(), self._origin()))

    def construct_processor(self, vocab_size: int, device: Any) -> Any:
        """Refuses transformers' own `generate`, which would leave the text unmarked."""
        raise UnsupportedError(
            f"watermark {self.scheme!r} is a genmode component; call genmode.generate(model, ...), or "
            "genmode.attach(model) before model.generate(...)"
        )

    def _values(self) -> dict[str, Any]:
        return self.params if self.key is None else {**self.params, "key": self.key}

    def _origin(self) -> str:
        return registry().info("watermarkers", self.scheme).origin
