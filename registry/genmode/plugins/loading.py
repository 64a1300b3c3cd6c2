"""From an entry to a component class: the one place where a plugin's code is imported.

`load` imports what the entry names, `check` refuses what is not a component of the announced kind or was
written for another contract, both before anything of it runs.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

from ..contract.deprecation import advise
from ..contract.kinds import COMPONENT_KINDS, Kind
from ..errors import ContractVersionError, PluginLoadError
from .call_keys import RESERVED
from .discovery import Entry, valid_name
from .identity import REGISTERED

if TYPE_CHECKING:
    from ..contract import Component


def describe(entry: Entry) -> str:
    """`strategy 'x' of dist 1.0 (file)`, for error messages."""
    return f"{Kind(entry.kind).noun} {entry.name!r} of {origin(entry)}"


def origin(entry: Entry, file: str | None = None) -> str:
    """`dist 1.0 (file)`; of what the program registered itself, `this program (file)`."""
    if entry.distribution == REGISTERED:
        return f"this program ({file or entry.path})"
    return f"{entry.distribution} {entry.version} ({file or entry.path})"


def load(entry: Entry) -> Any:
    """Import what the entry names, and check it.

    Returns:
        The component's class; for a hook plugin, the module or object.

    Raises:
        PluginLoadError: the import failed, with the original error as cause; or the object is no
            component of its kind.
        ContractVersionError: it was written for another contract, or does not say for which.
    """
    module, _, attributes = entry.value.partition("[")[0].partition(":")
    try:
        found: Any = importlib.import_module(module.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:  # importing runs the plugin's code, which may raise anything
        raise PluginLoadError(
            f"{describe(entry)} could not be loaded from {entry.value!r}: {type(error).__name__}: {error}. "
            f"Repair or uninstall the package, or set block={entry.distribution!r}"
        ) from error
    check(found, entry)
    return found


def kind_of(component: Any) -> Kind | None:
    """The kind that the base class tells; None of what is no component class."""
    if not isinstance(component, type):
        return None
    # watermarkers before processors, which they are too
    return next((kind for kind in reversed(COMPONENT_KINDS) if issubclass(component, _base(kind))), None)


def _base(kind: str) -> type[Component]:
    from .. import contract

    bases: dict[str, type[Component]] = {
        Kind.STRATEGIES: contract.Strategy,
        Kind.PROCESSORS: contract.LogitsProcessor,
        Kind.CRITERIA: contract.StoppingCriterion,
        Kind.WATERMARKERS: contract.Watermarker,
        Kind.DRAFTERS: contract.Drafter,
        Kind.VERIFICATIONS: contract.Verification,
    }
    return bases[kind]


_METHODS: dict[str, tuple[str, ...]] = {
    Kind.STRATEGIES: ("decode",),
    Kind.PROCESSORS: ("process",),
    Kind.CRITERIA: ("check",),
    Kind.WATERMARKERS: ("process", "evidence", "null"),
    Kind.DRAFTERS: ("draft",),
    Kind.VERIFICATIONS: ("accept", "behind"),
}
"""What a component of each kind has to define."""


def entry_of(component: Any, kind: str | None, name: str | None) -> Entry:
    """The entry that stands for something the program registers.

    Raises:
        PluginLoadError: the kind cannot be told, or the name is not allowed.
    """
    kind = kind or kind_of(component)
    if kind is None:
        raise PluginLoadError(
            f"{component!r} cannot be registered; it has to be a class derived from genmode.Strategy, "
            "LogitsProcessor, StoppingCriterion, Watermarker, Drafter or Verification, or a hook plugin given with kind='hooks'"
        )
    definition: Any = component if hasattr(component, "__name__") else type(component)
    qualified = getattr(definition, "__qualname__", definition.__name__)
    name = str(name or getattr(component, "name", None) or definition.__name__)
    if not valid_name(name):
        allowed = "letters, digits, `_`, and between them `-` and `.`"
        raise PluginLoadError(f"{name!r} cannot be the name of {qualified}; allowed are {allowed}")
    value = f"{getattr(definition, '__module__', definition.__name__)}:{qualified}"
    return Entry(str(kind), name, REGISTERED, "", value, source_file(component) or "")


def check(found: Any, entry: Entry) -> None:
    """Refuse an object that is not what its entry announces; see `load` for the errors."""
    from .. import contract

    if entry.kind == Kind.HOOKS:
        from .hooks import check_plugin

        version = getattr(found, "contract_version", contract.CONTRACT_VERSION)
        _check_version(version, entry)
        check_plugin(found, describe(entry))
        advise(found, describe(entry), version, contract.CONTRACT_VERSION)
        return
    base = _base(entry.kind)
    what = f"{Kind(entry.kind).noun} {entry.name!r} of {origin(entry, source_file(found))}: {entry.value!r}"
    if not isinstance(found, type):
        raise PluginLoadError(
            f"{what} is {_article(found)}; it has to be a class derived from genmode.{base.__name__}. {_ways(entry)}"
        )
    if not issubclass(found, base):
        parents = ", ".join(parent.__name__ for parent in found.__mro__[1:-1]) or "object"
        raise PluginLoadError(
            f"{what} derives from {parents}; it has to derive from genmode.{base.__name__}. {_ways(entry)}"
        )
    _check_version(found.contract_version, entry)
    for method in _METHODS[entry.kind]:
        if not _defines(found, method):
            raise PluginLoadError(f"{what} does not define {method}(). {_ways(entry)}")
    declared: Any = found.Params
    if not (isinstance(declared, type) and issubclass(declared, contract.Params)):
        raise PluginLoadError(f"{what}: its Params has to be a class derived from genmode.Params. {_ways(entry)}")
    if taken := sorted(RESERVED & declared.model_fields.keys()):
        raise PluginLoadError(
            f"{what}: its Params has {', '.join(map(repr, taken))}, which genmode.generate takes itself, so that no "
            f"call could ever set it; its author has to give it another name. {_ways(entry)}"
        )
    advise(found, what, found.contract_version or 0, contract.CONTRACT_VERSION)


def _defines(component: type[Component], method: str) -> bool:
    """Whether the class or one of its bases outside the contract has the method."""
    inherited = next(cls for cls in component.__mro__ if method in cls.__dict__)
    return not inherited.__module__.startswith("genmode.contract")


def named(component: type[Component], name: str) -> type[Component]:
    """The class under its public name. One that is offered under a second name gets a subclass for it."""
    if "_public_name" not in component.__dict__:
        setattr(component, "_public_name", name)  # noqa: B010 - a mark of the host, not part of the contract
        setattr(component, "_own_name", component.name)  # noqa: B010 - the same, for the conformance kit
        component.name = name
    if component.name == name:
        return component
    members = {"name": name, "__module__": component.__module__, "__qualname__": component.__qualname__}
    return type(component.__name__, (component,), members)


def source_file(found: Any) -> str | None:
    """The file that defines a class or module; None where there is none."""
    module = found if inspect.ismodule(found) else sys.modules.get(getattr(found, "__module__", ""))
    return getattr(module, "__file__", None)


def _check_version(version: Any, entry: Entry) -> None:
    from ..contract import CONTRACT_VERSION, OLDEST_CONTRACT

    if version is None:
        raise ContractVersionError(
            f"{describe(entry)} does not say for which contract it was written; "
            f"its author has to add `contract_version = {CONTRACT_VERSION}` to the class"
        )
    if type(version) is not int or not OLDEST_CONTRACT <= version <= CONTRACT_VERSION:
        newer = isinstance(version, int) and version > CONTRACT_VERSION
        way_out = "upgrade genmode" if newer else f"upgrade {entry.distribution}"
        older = f" and accepts {OLDEST_CONTRACT}" if OLDEST_CONTRACT < CONTRACT_VERSION else ""
        raise ContractVersionError(
            f"{describe(entry)} was written for contract {version!r}, and this genmode offers contract "
            f"{CONTRACT_VERSION}{older}; {way_out}"
        )


def _ways(entry: Entry) -> str:
    """What a user can do about a plugin that is at fault."""
    if entry.distribution == REGISTERED:
        return "Correct the program"
    return f"Upgrade or uninstall {entry.distribution}, or set block={entry.distribution!r}"


def _article(found: Any) -> str:
    return "a module" if inspect.ismodule(found) else f"an object of type {type(found).__name__}"
