"""The flags of a call, looked up as transformers does: keyword arguments, the given config, the model's own, defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..plugins.parameters import flag_defaults


class Flags(Mapping[str, Any]):
    """The flags in force, looked up in order; also readable as attributes, as a config is."""

    def __init__(self, *sources: Mapping[str, Any]) -> None:
        self._sources = sources

    def __getitem__(self, key: str) -> Any:
        for source in self._sources:
            value = source.get(key)
            if value is not None:
                return value
        return flag_defaults()[key]

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None

    def __iter__(self) -> Iterator[str]:
        seen = set(flag_defaults())
        for source in self._sources:
            seen |= {key for key in source if not key.startswith("_")}
        return iter(sorted(seen))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def set_by_caller(self) -> list[tuple[str, Any]]:
        """The flags that a keyword argument or a config sets to something else than the default."""
        found: dict[str, Any] = {}
        for source in reversed(self._sources):
            found.update((key, value) for key, value in source.items() if value is not None and key in flag_defaults())
        return [
            (key, value) for key, value in found.items()
            if not (isinstance(value, (int, float, str)) and value == flag_defaults()[key])
        ]  # fmt: skip

    def given(self, key: str) -> bool:
        """Whether a keyword argument or a config sets the key, rather than a default."""
        return any(source.get(key) is not None for source in self._sources)
