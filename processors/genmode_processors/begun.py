"""Attributes of a component that exist within a call."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import genmode

T = TypeVar("T")


class Begun(Generic[T]):
    """An attribute that `begin` sets, and that `reset` sets to None.

        _table: Begun[SequenceTable] = Begun()

    Raises:
        RuntimeError: it is read without a call.
    """

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, component: None, owner: type[Any]) -> Begun[T]: ...
    @overload
    def __get__(self, component: genmode.Component, owner: type[Any]) -> T: ...
    def __get__(self, component: genmode.Component | None, owner: type[Any]) -> Begun[T] | T:
        if component is None:
            return self
        value: T | None = component.__dict__.get(self._name)
        if value is None:
            method = "check" if isinstance(component, genmode.StoppingCriterion) else "process"
            raise RuntimeError(f"{component.name}: {method} was called before begin")
        return value

    def __set__(self, component: genmode.Component, value: T | None) -> None:
        component.__dict__[self._name] = value
