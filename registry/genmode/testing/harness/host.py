"""A host that sees no plugin of the environment."""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import importlib_metadata

from ...errors import UnknownComponentError
from ...plugins.identity import HOST, REGISTERED
from ...plugins.loading import kind_of
from ...plugins.registry import Registry, use
from ...plugins.settings import Settings

if TYPE_CHECKING:
    from ...contract import Component


@contextmanager
def isolated_host(*components: type[Component], builtins: bool = True) -> Generator[Registry, None, None]:
    """A host that has genmode's own components and these, and nothing else; in use within the block.

    Args:
        components: classes to register.
        builtins: False for a host without genmode's own components.
    """
    with use(make_host(components, builtins)) as registry:
        yield registry


def make_host(components: tuple[type[Component], ...] = (), builtins: bool = True) -> Registry:
    """A registry of genmode's own components and these; environment variables do not touch it."""
    prefer = {f"{kind_of(one)}:{one.name}": REGISTERED for one in components if not _is_own(one)} if builtins else {}
    registry = Registry(_own() if builtins else [], Settings(prefer=_taken(prefer)))
    for one in components:
        if not (builtins and _is_own(one)):
            registry.register(one, name=one.name)
    return registry


@functools.lru_cache(maxsize=64)
def shared_host(component: Any) -> Registry:
    """The host that all checks of one component, a class, share."""
    return make_host((component,))


def _own() -> list[Any]:
    return list(importlib_metadata.distributions(name=HOST))  # none in a source tree that nobody installed


@functools.lru_cache(maxsize=1)
def plain_host() -> Registry:
    """The host of genmode's own components alone."""
    return Registry(_own(), Settings())


def _is_own(component: type[Component]) -> bool:
    try:
        return plain_host().get(str(kind_of(component)), component.name) is component
    except UnknownComponentError:
        return False


def _taken(prefer: dict[str, str]) -> dict[str, str]:
    """Those preferences that are needed: of names that genmode's own components have."""
    names = {f"{info.kind}:{info.name}" for info in plain_host().components()}
    return {key: value for key, value in prefer.items() if key in names}
